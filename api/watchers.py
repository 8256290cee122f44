"""Which calls of this process wait for which job, so that a job ends only with the last of its callers."""

from collections import Counter


class Watchers:
    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._ours: set[str] = set()

    def join(self, job_id: str, *, made: bool) -> None:
        """`made`: this call made the job, and did not find it."""
        self._waiting[job_id] += 1
        if made:
            self._ours.add(job_id)

    def keep(self, job_id: str) -> None:
        """The job runs on without its callers."""
        self._ours.discard(job_id)

    def leave(self, job_id: str) -> bool:
        """True where nobody waits any more for a job that a call made."""
        self._waiting[job_id] -= 1
        if self._waiting[job_id] > 0:
            return False
        del self._waiting[job_id]
        was_ours = job_id in self._ours
        self._ours.discard(job_id)
        return was_ours
