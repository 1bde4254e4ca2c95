#!/usr/bin/env python3
"""Measures in Python what the sections `delayed/` measure in Rust: dask's `delayed`, with threads
and with `distributed`, and grain with its own four patterns.

    python3 -m venv venv && venv/bin/pip install "dask[distributed]" grain-scheduler
    venv/bin/python benches/python/delayed.py

Each line is the median of five rounds, per operator or job.
"""

import statistics
import time

ROUNDS = 5
OPERATORS = 1_000
JOBS = 300


def report(name, count, work):
    work()  # warm-up
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        times.append((time.perf_counter() - begun) / count)
    print(f"{name}, {statistics.median(times) * 1e6:.2f} us", flush=True)


def successor(number):
    return number + 1


def dask_lines():
    import dask
    from dask.distributed import Client

    dasked = dask.delayed(successor, pure=False)

    def numbers():
        total = dask.delayed(0.0)
        for _ in range(OPERATORS):
            total = total + 1.0
        assert total.compute(scheduler="synchronous") == OPERATORS

    def sums():
        values = [dask.delayed(1.0) for _ in range(OPERATORS)]
        assert dask.delayed(sum)(values).compute(scheduler="synchronous") == OPERATORS

    def jobs(compute):
        def work():
            values = compute([dasked(number) for number in range(JOBS)])
            assert list(values) == list(range(1, JOBS + 1))

        return work

    report("dask: sum = sum + 1.0", OPERATORS, numbers)
    report("dask: sum of values", OPERATORS, sums)
    threads = jobs(lambda values: dask.compute(*values, scheduler="threads"))
    report("dask, threads: 300 jobs at once", JOBS, threads)
    with Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        distributed = jobs(lambda values: client.gather(client.compute(values)))
        report("dask, distributed, one worker: 300 jobs at once", JOBS, distributed)

        def serial():
            for number in range(JOBS):
                assert client.submit(successor, number, pure=False).result() == number + 1

        report("dask, distributed, one worker: 300 jobs, one after the other", JOBS, serial)


def grain_lines():
    import trio
    from grain.delayed import delayed, each, run
    from grain.resource import Memory

    @delayed
    async def nop():
        await trio.sleep(0)

    async def serial_without():
        for _ in range(JOBS):
            await nop()

    async def parallel_without():
        await each([nop() for _ in range(JOBS)])

    async def serial_with():
        for _ in range(JOBS):
            await (nop @ Memory(0))()

    async def parallel_with():
        await each([(nop @ Memory(0))() for _ in range(JOBS)])

    async def main():
        for name, pattern in [
            ("without resources, one after the other", serial_without),
            ("without resources, all at once", parallel_without),
            ("with resources, one after the other", serial_with),
            ("with resources, all at once", parallel_with),
        ]:
            await pattern()
            times = []
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                await pattern()
                times.append((time.perf_counter() - begun) / JOBS)
            print(f"grain: 300 jobs {name}, {statistics.median(times) * 1e6:.2f} us", flush=True)

    run(main, config_file=False, local=Memory(0))


if __name__ == "__main__":
    dask_lines()
    grain_lines()
