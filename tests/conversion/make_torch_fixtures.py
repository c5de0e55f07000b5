"""Writes the small files in `data/` with PyTorch itself: `python make_torch_fixtures.py`.

It is the only file of the repository that imports torch (2.13.0 was used). The tests never run it. They
compare the reader's results with the rule in `filled`.
"""

import argparse
import functools
import pathlib
import sys
import types
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()


def filled(*shape: int, start: float = 0.0) -> torch.Tensor:
    """Returns start, start + 1/4, start + 2/4, ... in C order: exact in every float dtype here."""
    count = int(np.prod(shape))
    return (torch.arange(count) / 4 + start).reshape(shape)


def tensors() -> dict[str, object]:
    """Every dtype, layout and kind of tensor that the reader must support."""
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
    """A state dict with the names of a tiny ConvNeXt-AFC. A module makes it, so it has `_metadata`."""
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
    """A checkpoint in the form of the alias-free code base."""
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
    """A checkpoint in the form of multi-GPU programs: prefixed names, and numpy values."""
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
    """A training checkpoint of a small alias-free network, with a golden case as averaged weights."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
    import golden

    state = golden.load("afc_mini_128").state_dict
    averaged = OrderedDict((key, torch.from_numpy(np.array(value))) for key, value in state.items())
    live = OrderedDict((key, value / 2) for key, value in averaged.items() if value.numel() < 100)
    live = OrderedDict((key, live.get(key, value)) for key, value in averaged.items())
    return {"model": live, "model_ema": averaged, "epoch": "best-ema", "args": argparse.Namespace(seed=0)}


def stand_in(module: str, name: str) -> type:
    """A class of the training program, for pickle to refer to."""
    for parent in (module.split(".")[0], module):
        sys.modules.setdefault(parent, types.ModuleType(parent))
    made = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, made)
    return made


def lightning_checkpoint() -> dict[str, object]:
    """A checkpoint in the form of LPS: zero padding, logits with a skip, and a reflecting low-pass filter.

    It is a ResNet-18. Each weight repeats one element, so that the file is small.
    """
    sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
    import golden

    element = torch.full((1,), 0.25, dtype=torch.float16)
    state = OrderedDict()
    for key, value in golden.load("lps_resnet18_lpf2_64").state_dict.items():
        fixed = key.endswith(("filt", "num_batches_tracked", "gumbel_tau"))
        state[key] = torch.from_numpy(np.array(value)) if fixed else element.expand(value.shape)
    logits = stand_in("layers.lps_logit_layers", "LPSLogitLayersSkip")
    low_pass = stand_in("layers.lowpass_filter", "LowPassFilter")
    layer = functools.partial(
        stand_in("layers.polydown", "PolyphaseInvariantDown2D"),
        component_selection=stand_in("layers.polydown", "LPS"),
        get_logits=logits,
        antialias_layer=functools.partial(low_pass, filter_size=2, padding_mode="reflect"),
        logits_pad="zeros",
        selection_noantialias=True,
    )
    watcher = stand_in("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    optimizer = torch.optim.SGD([torch.nn.Parameter(filled(2))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60])
    return {
        "epoch": 89,
        "global_step": 450360,
        "pytorch-lightning_version": "1.4.0",
        "state_dict": state,
        "callbacks": {watcher: {"best_model_path": pathlib.PurePosixPath("/logs/best.ckpt")}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "padding_mode": "zeros",
            "num_classes": 1000,
            "pooling_layer": layer,
            "extras_model": {"maxpool_zpad": True, "conv1_stride": False, "logits_channels": None},
            "optimizer": torch.optim.SGD,
            "learning_rate": 0.1,
            "skipped": {"layer4"},
            "milestones": Counter([30, 60, 60]),
            "gain": 1 + 2j,
        },
    }


def main() -> None:
    """Writes all files."""
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
    torch.save(lightning_checkpoint(), DATA / "lps_resnet18.ckpt")


if __name__ == "__main__":
    main()
