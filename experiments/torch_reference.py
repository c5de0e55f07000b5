"""Trains the plain ResNet-20 in PyTorch with the recipe of the protocol `accurate`, for comparison.

python -m experiments.torch_reference --data=CIFAR.tar.xz             needs PyTorch
python -m experiments.torch_reference --data=CIFAR.tar.xz --steps=20  a trial: nothing is written

Network, initialisation, optimizer and mean loss are PyTorch's. Learning rates and batches are those of the
training in JAX: the same images in the same order, with the same crops and flips. The test images are used
once, after the training. The result is written to experiments/results/torch_reference.json.
"""

import json
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before imports of optional packages
    begin()

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from aliasfree_jax.commands import program, refuse
from aliasfree_jax.data import Batch, eval_batches, open_source, train_batches
from aliasfree_jax.errors import DataError, needed
from aliasfree_jax.evaluation.report import Rows, circumstances
from aliasfree_jax.evaluation.report.columns import percent
from aliasfree_jax.files import write_json
from aliasfree_jax.training.schedules import learning_rate, make_plan
from benchmarks.timing import machine
from experiments.protocols import ACCURATE, configuration
from experiments.stored import ROOT, Store, rounded
from experiments.worker import commit

RESULT = ROOT / "experiments" / "results" / "torch_reference.json"


def _initialise(network: Any, torch: Any) -> None:
    """He's initialisation, as in torchvision: normal kernels with the variance of the fan-out."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def trained(config: ConfigDict, steps: int) -> tuple[Any, float, int]:
    """Trains the network, and returns it with the seconds of its updates and their number.

    Args:
      config: The configuration of the run in JAX.
      steps: Number of updates. 0: all of the recipe.
    """
    torch = needed("torch", "experiments.torch_reference")
    from benchmarks.torch_networks import resnet20

    torch.manual_seed(config.seed)
    source = open_source(config.data, train=True)
    plan, size, how = make_plan(config, len(source)), config.train.batch_size, config.optimizer
    rate = learning_rate(how, plan)
    network = resnet20(num_classes=10).to(memory_format=torch.channels_last)
    _initialise(network, torch)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=how.learning_rate,
        momentum=how.momentum,
        nesterov=how.nesterov,
        weight_decay=how.weight_decay,
    )
    network.train()
    seconds, total = 0.0, steps or plan.total
    batches = train_batches(source, config.data, batch_size=size, seed=config.seed)
    for step, batch in enumerate(tqdm(islice(batches, total), total=total, mininterval=10)):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = float(rate(step))
        images, labels = _tensors(batch, torch)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        seconds += time.perf_counter() - began
    return network, seconds, total


def _tensors(batch: Batch, torch: Any) -> tuple[Any, Any]:
    """The images `[N, C, H, W]` and labels of a batch."""
    images = torch.from_numpy(np.asarray(batch["image"], np.float32)).permute(0, 3, 1, 2)
    return images, torch.from_numpy(np.asarray(batch["label"], np.int64))


def accuracy(network: Any, config: ConfigDict) -> float:
    """Accuracy on all test images."""
    torch, right, count = needed("torch", "experiments.torch_reference"), 0.0, 0.0
    network.eval()
    source = open_source(config.data, train=False)
    with torch.inference_mode():
        for batch in eval_batches(source, config.data, batch_size=config.eval.batch_size):
            images, labels = _tensors(batch, torch)
            mask = np.asarray(batch["mask"])
            right += float((mask * (network(images).argmax(1) == labels).numpy()).sum())
            count += float(mask.sum())
    return right / count


def table() -> Rows:
    """The stored result beside that of the same training in JAX.

    Raises:
      DataError: One of them is missing.
    """
    paths = RESULT, Store(ACCURATE).path(ACCURATE.runs()[0])
    if missing := [str(path) for path in paths if not path.exists()]:
        raise DataError(f"there is no {missing[0]}: run python -m experiments.torch_reference.")
    theirs, ours = (json.loads(path.read_text()) for path in paths)
    compared = (
        ("this package", ours["results"]["accuracy"], ours["seconds"]["training"]),
        (f"PyTorch {theirs['torch']}", theirs["accuracy"], theirs["seconds"]),
    )
    return [
        ["framework", "accuracy, %", "minutes of training"],
        *([name, percent(share).rstrip("%"), f"{seconds / 60:.0f}"] for name, share, seconds in compared),
    ]


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("data", None, "CIFAR-10: a folder, tar or zip", required=True, flag_values=values)
    flags.DEFINE_integer("steps", 0, "updates of a trial; 0: all", 0, flag_values=values)
    flags.DEFINE_integer("threads", 1, "PyTorch's threads", 1, flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    torch = needed("torch", "experiments.torch_reference")
    torch.set_num_threads(values.threads)
    config, code = configuration(ACCURATE, ACCURATE.runs()[0], values.data), commit()
    network, seconds, steps = trained(config, values.steps)
    print(f"{steps} updates, {steps * config.train.batch_size / seconds:.0f} images/s")
    if values.steps:
        return
    about = machine()
    found = {
        "accuracy": accuracy(network, config),
        "seconds": seconds,
        "torch": torch.__version__,
        "threads": values.threads,
        "code": code,
        **circumstances(),
        "command": f"python -m experiments.torch_reference --data={Path(values.data).name}",
        **{"processor": about["device"], "load": about["load"]},
    }
    write_json(RESULT, rounded(found), indent=1)
    print(f"accuracy {found['accuracy']:.2%}, wrote {RESULT}")


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))
