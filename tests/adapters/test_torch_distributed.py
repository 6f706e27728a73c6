"""SigmoidLinear in two processes, by gloo on the CPU, beside Linear and Sigmoid."""

import json
import subprocess
import sys

import pytest

from tests.support.torch_functions import torch

LIMIT = 120  # seconds; a process takes 10 on two busy cores
SETUP = """
import json, sys
from importlib import import_module

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import gpugrad.torch

import_module("gpugrad.torch.small_layers").FEW = 0
rank, store = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{store}")
mesh = init_device_mesh("cpu", (2,))


def trained(layer):
    torch.manual_seed(0)
    net = wrapped(nn.Sequential(layer(6, 5), layer(5, 4)).double())
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    torch.manual_seed(1 + rank)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(3, 6, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    values = (one.full_tensor() if hasattr(one, "full_tensor") else one for one in net.parameters())
    return [one.tolist() for one in values]


def replaced(k, m):
    return nn.Sequential(nn.Linear(k, m), nn.Sigmoid())

"""
TRAIN = """
print(json.dumps([trained(gpugrad.torch.SigmoidLinear), trained(replaced)]))
distributed.destroy_process_group()
"""
WRAPPED = {
    "DDP": "wrapped = nn.parallel.DistributedDataParallel",
    "FSDP2": """
def wrapped(net):
    for one in net:
        fully_shard(one, mesh=mesh)
    return fully_shard(net, mesh=mesh)
""",
}


@pytest.mark.parametrize("name", WRAPPED)
def test_training_in_two_processes(name, tmp_path):
    code = SETUP + WRAPPED[name] + TRAIN
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outcomes = [one.communicate(timeout=LIMIT) for one in processes]
    finally:
        for one in processes:
            one.kill()
    for one, (_, errors) in zip(processes, outcomes, strict=True):
        assert one.returncode == 0, errors
    results = [json.loads(printed.splitlines()[-1]) for printed, _ in outcomes]
    assert results[0] == results[1]
    for one, expected in zip(*results[0], strict=True):
        torch.testing.assert_close(
            *(torch.tensor(values, dtype=torch.float64) for values in (one, expected)),
            rtol=1e-12,
            atol=1e-12,
        )
