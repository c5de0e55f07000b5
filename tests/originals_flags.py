"""Reads the originals' command lines, and states the fields that a run of this package must have.

The parsers know the flags that the originals' READMEs use. Any other flag is an error, so that no flag of a
line is ignored.
"""

import argparse
import json
import shlex


class _Parser(argparse.ArgumentParser):
    def __init__(self, *arguments):
        """`arguments`: names and options of each flag."""
        super().__init__(allow_abbrev=False, add_help=False)
        for *names, options in arguments:
            self.add_argument(*names, **options)

    def error(self, message):
        raise ValueError(message)


ON = {"action": "store_true"}
_BLURPOOL = _Parser(
    ("--data", {}),
    ("-a", {"dest": "network"}),
    ("-f", {"type": int, "dest": "taps"}),
    ("--resume", {}),
    ("--pretrained", ON),
    ("-e", {**ON, "dest": "evaluate"}),
    ("-es", {**ON, "dest": "shifts"}),
    ("-ens", {"type": int}),
    ("-ens_sm", ON),
    ("--weights", {}),
    ("--save_weights", {}),
    ("--gpu", {"type": int}),
    ("--out-dir", {}),
    ("--lr", {"type": float, "default": 0.1}),
    ("--cos_lr", ON),
    ("--wd", {"type": float, "default": 1e-4}),
    ("-b", {"type": int, "default": 256, "dest": "batch"}),
    ("-ba", {"type": int, "default": 1, "dest": "parts"}),
    ("-ep", "--ep", {"type": int, "default": 90, "dest": "epochs"}),
    ("--finetune", ON),
)
_APS = _Parser(
    ("--out-dir", {}),
    ("--arch", {}),
    ("--seed", {"type": int}),
    ("--data", {}),
    ("--workers", {"type": int}),
    ("--dist-url", {}),
    ("--dist-backend", {}),
    ("--multiprocessing-distributed", ON),
    ("--world-size", {"type": int}),
    ("--rank", {"type": int}),
)
_APS_CIFAR = _Parser(
    ("--arch", {}),
    ("--filter_size", {"type": int}),
    ("--validate_consistency", ON),
    ("--seed_num", {"type": int}),
    ("--device_id", {"type": int}),
    ("--model_folder", {}),
    ("--results_root_path", {}),
    ("--dataset_path", {}),
)
_AFC = _Parser(
    ("--model", {}),
    ("--blurpool_kwargs", {"type": json.loads}),
    ("--activation", {}),
    ("--activation_kwargs", {"type": json.loads}),
    ("--model_kwargs", {"type": json.loads, "default": {}}),
    ("--stem_activation_kwargs", {"type": json.loads}),
    ("--normalization_type", {}),
    ("--drop_path", {"type": float}),
    ("--batch_size", {"type": int}),
    ("--update_freq", {"type": int}),
    ("--lr", {"type": float}),
    ("--model_ema", {}),
    ("--model_ema_eval", {}),
    ("--data_set", {}),
    ("--data_path", {}),
    ("--output_dir", {}),
    ("--epochs", {"type": int}),
    ("--warmup_epochs", {"type": int}),
)
_LAUNCH = _Parser(("--nproc_per_node", {"type": int}), ("--master_port", {}))
_OF_NETWORKS = (
    *("blurpool_kwargs", "activation", "activation_kwargs", "stem_activation_kwargs", "normalization_type"),
)


def _words(line):
    return shlex.split(line.split("main.py ", 1)[1])


def blurpool(line):
    """Flags of a line of antialiased-cnns; `model` has filters of `taps` taps, 0 if it is plain."""
    flags = _BLURPOOL.parse_args(_words(line))
    flags.model, _, digits = flags.network.partition("_lpf")
    flags.taps = flags.taps or int(digits or 0)
    return flags


def blurpool_fields(flags):
    """The fields of a training. The original adds the gradients of its parts; here they are averaged."""
    return {
        "train.batch_size": flags.batch * flags.parts,
        "train.accumulation_steps": flags.parts,
        "train.total_epochs": flags.epochs,
        "train.devices": 0 if flags.gpu is None else 1,
        "optimizer.name": "sgd",
        "optimizer.learning_rate": flags.lr * flags.parts,
        "optimizer.weight_decay": flags.wd / flags.parts,
        "optimizer.schedule": "cosine" if flags.cos_lr else "step",
    }


def aps(line):
    """Source, network and options of a line of truly_shift_invariant_cnns, and the fields of the training."""
    if "--filter_size" in line:
        flags = _APS_CIFAR.parse_args(_words(line))
        fields = {
            "seed": flags.seed_num,
            "train.devices": 1,
            "eval.during": ("integer",) if flags.validate_consistency else (),
            "eval.max_shift": 3,
            "data.path": flags.dataset_path,
            "data.image_size": 32,
            "train.total_epochs": 250,
            "workdir": f"{flags.results_root_path}/{flags.model_folder}",
        }
        return "truly_shift_invariant_cnns/cifar10", flags.arch, {"filter_size": flags.filter_size}, fields
    flags = _APS.parse_args(_words(line))
    fields = {
        "seed": flags.seed,
        "train.devices": 0,
        "data.path": flags.data,
        "data.image_size": 224,
        "data.workers": flags.workers or 0,
        "train.total_epochs": 90,
        "workdir": flags.out_dir,
    }
    return "truly_shift_invariant_cnns", flags.arch[:-1], {"filter_size": int(flags.arch[-1])}, fields


def afc(line):
    """Network and options of a line of alias_free_convnets, and the fields of the training."""
    launch = _LAUNCH.parse_args(shlex.split(line.split("launch ")[1].split(" main.py")[0]))
    flags = _AFC.parse_args(_words(line))
    options = {name: getattr(flags, name) for name in _OF_NETWORKS if getattr(flags, name) is not None}
    options |= {"drop_path_rate": flags.drop_path, **flags.model_kwargs}
    assert (flags.model_ema, flags.model_ema_eval, flags.data_set) == ("true", "true", "IMNET")
    fields = {
        "train.batch_size": launch.nproc_per_node * flags.batch_size * flags.update_freq,
        "train.accumulation_steps": flags.update_freq,
        "train.total_epochs": flags.epochs,
        "optimizer.learning_rate": flags.lr,
        "optimizer.warmup_epochs": flags.warmup_epochs,
        "optimizer.name": "adamw",
        "train.ema_decay": 0.9999,
    }
    return flags.model.removesuffix("_tiny"), options, fields
