"""All SQL. Every function takes the connection of the transaction that its caller owns."""
