"""Schema changes, applied by `penstock migrate`: expand first, contract a release later."""
