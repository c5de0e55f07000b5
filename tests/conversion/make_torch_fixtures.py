"""Writes the small files in `data/` with PyTorch itself: `python make_torch_fixtures.py`.

The only file of the repository that imports torch (2.13.0 was used), and never run by the tests:
they compare what the reader makes of the stored files with the rule in `filled`.
"""

import argparse
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()


def filled(*shape: int, start: float = 0.0) -> torch.Tensor:
    """start, start + 1/4, start + 2/4, ... in C order: exact in every float dtype used here."""
    count = int(np.prod(shape))
    return (torch.arange(count) / 4 + start).reshape(shape)


def tensors() -> dict[str, object]:
    """Every dtype, layout and kind of tensor that the reader has to know."""
    shared = filled(12)
    content: dict[str, object] = {f"dtype.{name}": filled(3, 4).to(getattr(torch, name)) for name in DTYPES}
    return content | {
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "transposed": filled(3, 4).T,
        "channels_last": filled(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "sliced": filled(4, 6)[1:, ::2],
        "expanded": filled(3, 1).expand(3, 4),
        "shared.all": shared,
        "shared.part": shared[4:10],
        "parameter": torch.nn.Parameter(filled(2, 2)),
    }


def weights(start: float) -> "OrderedDict[str, torch.Tensor]":
    """A state dict with the names of a tiny ConvNeXt-AFC, in a module so that it has `_metadata`."""
    module = torch.nn.Module()
    module.gamma = torch.nn.Parameter(filled(4, start=start))
    module.act = torch.nn.Module()
    module.act.coef = torch.nn.Parameter(filled(4, 3, 1, 1, start=start))
    module.act.register_buffer("rect", filled(4, 3, start=start))
    module.head = torch.nn.Linear(4, 2)
    module.head.weight.data = filled(2, 4, start=start)
    module.head.bias.data = filled(2, start=start)
    return module.state_dict()


def training_checkpoint() -> dict[str, object]:
    """What the training program of the alias-free code base saves."""
    parameters = [torch.nn.Parameter(filled(2, 4)), torch.nn.Parameter(filled(2))]
    optimizer = torch.optim.AdamW(
        [{"params": parameters[:1], "lr_scale": 1.0}, {"params": parameters[1:], "weight_decay": 0.0}]
    )
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {
        "model": weights(0.0),
        "model_ema": weights(100.0),
        "optimizer": optimizer.state_dict(),
        "epoch": "best-ema",
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "args": argparse.Namespace(
            model="convnext_afc",
            lr=0.004,
            resume=None,
            betas=[0.9, 0.999],
            device=torch.device("cuda", 0),
            dtype=torch.float32,
            size=torch.Size([3, 32, 32]),
        ),
    }


def parallel_checkpoint() -> dict[str, object]:
    """What programs for several GPUs save: a prefix before each name, numpy values beside them."""
    return {
        "epoch": 90,
        "arch": "resnet50",
        "state_dict": OrderedDict((f"module.{name}", value) for name, value in weights(0.0).items()),
        "best_acc1": np.float64(76.25),
        "history": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "none": np.empty(0, np.int64),
        "dtype": np.dtype(np.int16),
    }


def network_checkpoint() -> dict[str, object]:
    """A training checkpoint of a small alias-free network: the weights of a golden case, averaged."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
    import golden

    state = golden.load("afc_mini_128").state_dict
    averaged = OrderedDict((key, torch.from_numpy(np.array(value))) for key, value in state.items())
    live = OrderedDict((key, value / 2) for key, value in averaged.items() if value.numel() < 100)
    live = OrderedDict((key, live.get(key, value)) for key, value in averaged.items())
    return {"model": live, "model_ema": averaged, "epoch": "best-ema", "args": argparse.Namespace(seed=0)}


def main() -> None:
    """Write all files."""
    DATA.mkdir(exist_ok=True)
    contents = {
        "tensors": tensors(),
        "training": training_checkpoint(),
        "parallel": parallel_checkpoint(),
        "weights": weights(0.0),
    }
    for name, content in contents.items():
        torch.save(content, DATA / f"{name}_zip.pth")
        torch.save(content, DATA / f"{name}_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(network_checkpoint(), DATA / "convnext_afc_mini.pth")


if __name__ == "__main__":
    main()
