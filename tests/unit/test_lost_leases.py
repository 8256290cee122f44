import asyncio

from core.metrics import REGISTRY
from tests.unit.test_dispatch import SLOW, Bench, running
from workers.runner import Stop


def leases_lost() -> float:
    return REGISTRY.get_sample_value("penstock_leases_lost_total", {"model": "default"}) or 0.0


async def test_a_lease_that_went_while_its_run_was_recorded_does_not_count_as_lost() -> None:
    async with running(Bench()) as bench:
        before, bench.ledger.written = leases_lost(), asyncio.Event()
        delivery = bench.submit("job_1")
        await bench.ledger.settling.wait()
        bench.desk.stop(bench.desk.running["job_1"], Stop.LOST)
        bench.ledger.written.set()
        assert (await delivery.ended)[0] == "succeeded"
        assert leases_lost() == before


async def test_a_lease_that_went_while_its_job_ran_counts_as_lost() -> None:
    async with running(Bench(latency=SLOW)) as bench:
        before, delivery = leases_lost(), bench.submit("job_1")
        await delivery.begun.wait()
        run = bench.desk.running["job_1"]
        while not run.begun:  # noqa: ASYNC110 - its first step is the loop's next
            await asyncio.sleep(0)
        bench.desk.stop(run, Stop.LOST)
        assert await delivery.ended == ("dropped", "lease_lost")
        assert leases_lost() == before + 1
