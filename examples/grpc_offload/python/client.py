"""Calls the service from Python's grpcio: `client.py PROGRAM CERTIFICATE KEY`. The files are a
certificate of 127.0.0.1 and its key. Starts the program for each check."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from offload_pb2 import FAULT_CRASH, FAULT_HANG, FAULT_PANIC, Item, Subscription
from offload_pb2_grpc import OffloadStub

# No call takes as long, unless something hangs.
HANGS = 60

# The arguments of a server whose jobs have no limit that a check could reach, so that only the
# cancellation of their calls ends them.
PATIENT = "--job-limit", "3600"


class Server:
    def __init__(self, *arguments):
        command = [sys.argv[1], "127.0.0.1:0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().removeprefix("listening at ").strip()

    def workers(self):
        """Returns the process numbers of the workers."""
        workers = []
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            try:
                with open(f"/proc/{self.process.pid}/task/{task}/children") as children:
                    pids = children.read().split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            for pid in pids:
                try:
                    with open(f"/proc/{pid}/comm") as name:
                        if name.read().strip().endswith("-worker"):
                            workers.append(int(pid))
                except (FileNotFoundError, ProcessLookupError):
                    pass
        return workers

    def end(self):
        """Sends SIGTERM. Returns how many items were accepted and processed."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self):
        printed, _ = self.process.communicate(timeout=HANGS)
        assert self.process.returncode == 0, self.process.returncode
        assert printed.startswith("ended: "), printed
        words = printed.split()
        return int(words[1]), int(words[4])


@contextmanager
def server(*arguments):
    running = Server(*arguments)
    try:
        with grpc.insecure_channel(running.address) as channel:
            running.channel = channel
            yield running, OffloadStub(channel)
    finally:
        running.process.kill()
        running.process.wait()


def status_of(call, *arguments, **options):
    """Returns the status of a call that fails."""
    try:
        answer = call(*arguments, **options)
    except grpc.RpcError as error:
        return error.code()
    raise AssertionError(f"{answer} instead of an error")


def check_calls():
    with server(*PATIENT) as (running, stub):
        assert stub.Compute(Item(id=3, limit=100), timeout=HANGS).primes == 25
        for fault in FAULT_PANIC, FAULT_CRASH:
            status = status_of(stub.Compute, Item(limit=100, fault=fault), timeout=HANGS)
            assert status == grpc.StatusCode.ABORTED, status
        status = status_of(stub.Compute, Item(fault=FAULT_HANG), timeout=0.2)
        assert status == grpc.StatusCode.DEADLINE_EXCEEDED, status
        assert stub.Compute(Item(limit=100), timeout=HANGS).primes == 25
        assert sockets_of(running.process.pid)
        for worker in running.workers():
            assert not sockets_of(worker), "a worker holds a connection"
        running.end()


def check_tls():
    certificate, key = sys.argv[2:]
    with open(certificate, "rb") as file:
        trusted = grpc.ssl_channel_credentials(file.read())
    # Without a certificate, grpcio trusts those of the well-known authorities.
    untrusting = grpc.ssl_channel_credentials()
    with server("--certificate", certificate, "--key", key) as (running, stub):
        # The server's own channel has no TLS.
        for _ in range(3):
            status = status_of(stub.Compute, Item(limit=100), timeout=HANGS)
            assert status == grpc.StatusCode.UNAVAILABLE, status
        with grpc.secure_channel(running.address, untrusting) as channel:
            call = OffloadStub(channel).Compute
            status = status_of(call, Item(limit=100), timeout=HANGS)
            assert status == grpc.StatusCode.UNAVAILABLE, status
        with grpc.secure_channel(running.address, trusted) as channel:
            stub = OffloadStub(channel)
            updates = stub.GetUpdates(Subscription(), timeout=HANGS)
            updates.initial_metadata()
            assert stub.Compute(Item(limit=100), timeout=HANGS).primes == 25
            items = (Item(id=id, limit=100, padding=bytes(50_000)) for id in range(50))
            assert stub.DoSomething(items, timeout=HANGS).accepted == 50
            status = status_of(stub.Compute, Item(fault=FAULT_HANG), timeout=0.2)
            assert status == grpc.StatusCode.DEADLINE_EXCEEDED, status
            running.process.send_signal(signal.SIGTERM)
            assert sorted(update.id for update in updates) == list(range(50))
            assert running.ended() == (50, 50)


def check_health():
    with server() as (running, _):
        stub = health_pb2_grpc.HealthStub(running.channel)
        request = health_pb2.HealthCheckRequest(service="offload.v1.Offload")
        serving = health_pb2.HealthCheckResponse.SERVING
        assert stub.Check(request, timeout=HANGS).status == serving
        watch = stub.Watch(request, timeout=HANGS)
        assert next(watch).status == serving
        running.process.send_signal(signal.SIGTERM)
        assert all(answer.status != serving for answer in watch)
        running.ended()


def check_reflection():
    with server() as (running, _):
        database = ProtoReflectionDescriptorDatabase(running.channel)
        assert "offload.v1.Offload" in database.get_services()
        service = DescriptorPool(database).FindServiceByName("offload.v1.Offload")
        methods = {"Compute", "DoSomething", "GetUpdates"}
        assert set(service.methods_by_name) == methods
        running.end()


def check_killed_server():
    with server() as (running, stub):
        calls = [stub.Compute.future(Item(fault=FAULT_HANG), timeout=HANGS) for _ in range(4)]
        wait_until(lambda: len(running.workers()) > 0)
        workers = running.workers()
        running.process.kill()
        wait_until(lambda: not any(map(is_running, workers)))
        for call in calls:
            assert call.code() == grpc.StatusCode.UNAVAILABLE, call.code()


def check_streams():
    with server() as (running, stub):
        subscribers = [stub.GetUpdates(Subscription(), timeout=HANGS) for _ in range(3)]
        for subscriber in subscribers:
            # The metadata comes when the subscription has begun.
            subscriber.initial_metadata()
        items = (Item(id=id, limit=100) for id in range(50))
        assert stub.DoSomething(items, timeout=HANGS).accepted == 50
        running.process.send_signal(signal.SIGTERM)
        for subscriber in subscribers:
            # A stream without an end ends with the server, after the last update.
            updates = list(subscriber)
            assert sorted(update.id for update in updates) == list(range(50))
            assert all(update.primes == 25 for update in updates)
        assert running.ended() == (50, 50)


def check_cancelled_calls():
    with server(*PATIENT) as (running, stub):
        calls = [stub.Compute.future(Item(fault=FAULT_HANG), timeout=HANGS) for _ in range(4)]
        wait_until(lambda: len(running.workers()) > 0)
        for call in calls:
            call.cancel()
        assert stub.Compute(Item(limit=100), timeout=HANGS).primes == 25
        running.end()


def check_kills():
    """Kills workers while calls are made. None hangs, and no answer is wrong."""
    with server() as (running, stub):
        done = threading.Event()

        def kill():
            killed = 0
            while not done.wait(random.uniform(0, 0.02)):
                workers = running.workers()
                if workers:
                    try:
                        os.kill(random.choice(workers), signal.SIGKILL)
                        killed += 1
                    except ProcessLookupError:
                        pass
            return killed

        def call(id):
            try:
                update = stub.Compute(Item(id=id, limit=2000), timeout=HANGS)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.ABORTED, error
                return False
            assert (update.id, update.primes) == (id, 303)
            return True

        with ThreadPoolExecutor(17) as threads:
            killing = threads.submit(kill)
            try:
                answered = sum(threads.map(call, range(600)))
            finally:
                done.set()  # or the end of the block would wait forever
            killed = killing.result()
        assert killed > 0 and 600 - answered <= killed, (killed, answered)
        print(f"{answered} of 600 calls were answered, {killed} workers were killed")
        assert stub.Compute(Item(limit=100), timeout=HANGS).primes == 25
        running.end()


def check_termination_under_load():
    """Sends SIGTERM while items are uploaded. What was acknowledged was processed."""
    with server() as (running, stub):
        def upload(number):
            acknowledged = 0
            while True:
                items = (Item(id=id, limit=100) for id in range(20))
                try:
                    acknowledged += stub.DoSomething(items, timeout=HANGS).accepted
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                    return acknowledged

        with ThreadPoolExecutor(8) as threads:
            uploads = [threads.submit(upload, number) for number in range(8)]
            time.sleep(0.5)
            running.process.send_signal(signal.SIGTERM)
            acknowledged = sum(upload.result() for upload in uploads)
        accepted, processed = running.ended()
        assert 0 < acknowledged <= accepted == processed, (acknowledged, accepted, processed)
        print(f"{acknowledged} items were acknowledged, {processed} processed")


def check_end_of_grace():
    with server("--grace", "0.2", "--job-limit", "3600") as (running, stub):
        call = stub.Compute.future(Item(fault=FAULT_HANG), timeout=HANGS)
        wait_until(lambda: len(running.workers()) > 0)
        running.process.send_signal(signal.SIGTERM)
        assert call.code() == grpc.StatusCode.UNAVAILABLE, call.code()
        running.ended()


def check_second_signal():
    """Sends SIGTERM twice while items are in the queue. They are lost, and the program says so."""
    with server("--dispatchers", "1", "--job-limit", "3600") as (running, stub):
        items = (Item(id=id, fault=FAULT_HANG) for id in range(5))
        assert stub.DoSomething(items, timeout=HANGS).accepted == 5
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(running.address))
        running.process.send_signal(signal.SIGTERM)
        printed, _ = running.process.communicate(timeout=HANGS)
        assert printed == "ended too late: 5 items accepted, 0 processed\n", printed


def is_refused(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=HANGS).close()
    except ConnectionError:
        return True  # reset, if the port was closed in between
    return False


def sockets_of(pid):
    """Returns the TCP sockets that a process holds."""
    with open(f"/proc/{pid}/net/tcp") as table:
        inodes = {line.split()[9] for line in table.readlines()[1:]}
    links = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            pass  # closed since it was listed
    return [link for link in links if link.removeprefix("socket:[").rstrip("]") in inodes]


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition):
    deadline = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < deadline, "something hangs"
        time.sleep(0.01)


for name, check in list(globals().items()):
    if name.startswith("check_"):
        check()
        print(f"{name}: ok")
