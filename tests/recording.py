"""Records the results of the package, to prove that a redesign changes no result.

    python tests/recording.py before.json          # half an hour on two cores
    ... the redesign ...
    python tests/recording.py after.json
    python tests/recording.py --compare before.json after.json

Of every array, the shape, the type and a hash of the bytes are stored. So equal means bit for bit equal, on
one machine with one version of jax. `RENAMED` lists names that changed on purpose.
"""

import hashlib
import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from aliasfree_jax import create_model, list_models  # noqa: E402
from aliasfree_jax.checkpoint import load_model  # noqa: E402
from aliasfree_jax.training import loop  # noqa: E402
from aliasfree_jax.training.adopting import Pretrained  # noqa: E402
from aliasfree_jax.training.optimizer import make_optimizer  # noqa: E402
from aliasfree_jax.training.schedules import learning_rate, make_plan, temperature  # noqa: E402
from configs import quickstart  # noqa: E402

# (pattern, replacement) for names of an older recording, e.g. (r"^logits/(\w+)_old", r"logits/\1_new").
RENAMED: list[tuple[str, str]] = []

Recording = dict[str, str]


def _text(leaf: Any) -> str:
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        array = np.asarray(leaf)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return f"{array.dtype}{list(array.shape)} {digest}"
    return repr(leaf)


def _named(prefix: str, tree: Any) -> Recording:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        f"{prefix}/{jax.tree_util.keystr(path, simple=True, separator='/')}": _text(leaf)
        for path, leaf in leaves
    }


def _images(name: str, count: int) -> jax.Array:
    side = 32 if re.search("cifar|micro|basic", name) else 128 if "alexnet" in name else 96
    return jnp.asarray(np.random.default_rng(0).standard_normal((count, side, side, 3)), jnp.float32)


def _shapes(name: str) -> Recording:
    """Names and shapes of all variables of the network."""
    variables = jax.eval_shape(create_model(name).init, jax.random.key(0), _images(name, 1))
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    text = "\n".join(f"{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}" for path, leaf in leaves)
    return {f"variables/{name}": f"{len(leaves)} {hashlib.sha256(text.encode()).hexdigest()[:16]}"}


def _values(name: str, module: Any) -> Recording:
    """Logits, and all gradients of a training step."""
    images = _images(name, 2)
    variables = jax.jit(module.init)(jax.random.key(0), images)
    rest = {kind: values for kind, values in variables.items() if kind != "params"}
    keys = {stream: jax.random.key(i) for i, stream in enumerate(("gumbel", "dropout", "drop_path"))}

    def loss(params: Any, images: jax.Array) -> Any:
        apply = {"train": True, "rngs": keys, "mutable": ["batch_stats"]}
        logits, updated = module.apply({"params": params, **rest}, images, **apply)
        return (logits**2).sum(), (logits, updated)

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, training), gradients = step(variables["params"], images)
    logits = jax.jit(lambda v: module.apply(v, images, train=False))(variables)
    found = {"initial": variables, "logits": logits, "training": training, "gradients": gradients}
    return _named(f"values/{name}", jax.device_get(found))


def record_networks() -> Iterator[Recording]:
    """Variables of every network; values of networks with one block per stage, once for equal networks."""
    seen = set()
    for name in list_models():
        yield _shapes(name)
        module = create_model(name, num_classes=5)
        less = {"depths": (1,) * len(module.depths)} if hasattr(module, "depths") else {}
        if name.startswith("convnext"):
            less["widths"] = (8, 16, 32, 64)[: len(module.depths)]
        module = create_model(name, num_classes=5, **less)
        if module not in seen:
            seen.add(module)
            yield _values(name, module)


def _parameters() -> dict[str, Any]:
    """Parameters of small networks: weight decay and layer decay depend only on names and axes."""
    options = {"depths": (1, 1, 4, 1), "widths": (4, 4, 8, 8), "num_classes": 3}
    lps = create_model("resnet18_cifar_lps", **options | {"depths": (1, 1, 1), "widths": (4, 4, 8)})
    networks = {"lps": lps, "afc": create_model("convnext_afc_tiny", **options)}
    images = jnp.ones((1, 96, 96, 3))
    return {name: module.init(jax.random.key(0), images)["params"] for name, module in networks.items()}


def record_recipes() -> Iterator[Recording]:
    """Every configuration: learning rates and temperatures at ten steps, and updates for two gradients.

    The update for a zero gradient is the weight decay, which shows its mask.
    """
    parameters = _parameters()
    for path in sorted((ROOT / "configs").glob("[a-z]*.py")):
        config = importlib.import_module(f"configs.{path.stem}").get_config()
        yield _named(f"config/{path.stem}", {k: repr(v) for k, v in sorted(_flat(config).items())})
        rate, heat, optimizer, total = inside(config)
        steps = np.unique(np.linspace(0, total, 10).astype(int))
        found: dict[str, Any] = {"total": total, "rates": [np.float32(rate(int(s))) for s in steps]}
        if heat is not None:
            found["temperatures"] = [np.float32(heat(int(s))) for s in steps]
        yield _named(f"recipe/{path.stem}", found)
        network = "lps" if "resnet" in config.model.name else "afc"
        params = parameters[network]
        state, apply = optimizer.init(params), jax.jit(optimizer.update)
        for step, size in enumerate((0.0, 0.1)):
            gradients = jax.tree.map(lambda p, size=size: jnp.full_like(p, size), params)
            updates, state = apply(gradients, state, params)
            yield _named(f"update{step}/{path.stem}", jax.device_get(updates))


def inside(config: ConfigDict) -> tuple[optax.Schedule, optax.Schedule | None, Any, int]:
    """Learning rate, temperature, optimizer and number of steps of a configuration for 50,000 images."""
    plan = make_plan(config, 50_000)
    rate = learning_rate(config.optimizer, plan)
    return (
        rate,
        temperature(config.train.temperature, plan),
        make_optimizer(config.optimizer, rate),
        plan.total,
    )


def _flat(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in config.items():
        nested = isinstance(value, ConfigDict)
        found |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def _runs() -> dict[str, ConfigDict]:
    """Short runs that use most features of a configuration."""
    plain = quickstart.get_config()
    plain.model.options = {"depths": (1, 1), "widths": (8, 16)}
    plain.data.train_limit, plain.data.eval_limit = 64, 20
    plain.train.batch_size, plain.train.total_epochs = 16, 2.0
    plain.eval.every_epochs = plain.checkpoint.every_epochs = 1.0
    rich = plain.copy_and_resolve_references()
    rich.model.name = "resnet20_cifar_lps"
    rich.model.options = {"depths": (1, 1, 1), "widths": (4, 8, 8)}
    rich.data.crop, rich.data.flip, rich.data.validation = "padded", True, 0.25
    rich.data.circular_shift, rich.data.erase_probability = 4, 0.25
    rich.train.batch_size, rich.train.accumulation_steps = 12, 2
    rich.train.ema_decay, rich.train.label_smoothing = 0.9, 0.1
    rich.train.mixing.mixup, rich.train.mixing.cutmix, rich.train.mixing.group = 0.8, 1.0, 2
    rich.train.temperature.schedule, rich.train.temperature.every_epochs = "decay", 0.5
    rich.optimizer.name, rich.optimizer.clip_norm = "sgd", 1.0
    rich.checkpoint.best = "accuracy"
    large = plain.copy_and_resolve_references()
    large.model.name = "convnext_afg_micro"
    large.data.rand_augment, large.data.crop = "rand-m9-mstd0.5-inc1", "random_resized"
    large.optimizer.name, large.optimizer.layer_decay = "lamb", 0.8
    large.train.precision, large.train.remat = "bfloat16", "block"
    start = plain.copy_and_resolve_references()
    start.model.name = "convnext_micro"
    # "tuned" starts from the weights of "start".
    return {"plain": plain, "rich": rich, "large": large, "start": start, "tuned": plain}


class _InterruptedError(Exception):
    pass


def record_runs(directory: Path) -> Iterator[Recording]:
    """Losses and last variables of each run, after eight steps. The evaluation after four is interrupted."""
    evaluations = 0
    summary = None

    def evaluate(predict: Any, batches: Any) -> dict[str, float]:
        nonlocal evaluations
        evaluations += 1
        if evaluations == 1:
            raise _InterruptedError
        logits = np.concatenate([predict(batch["image"]) for batch in batches])
        return {"accuracy": float(np.abs(logits).mean())}

    for name, config in _runs().items():
        evaluations = 0
        initial = Pretrained(summary.card, summary.variables) if name == "tuned" and summary else None
        try:
            loop.run(config, directory / name, pretrained=initial, evaluate=evaluate)
        except _InterruptedError:
            pass
        summary = loop.run(config, directory / name, evaluate=evaluate)
        lines = map(json.loads, (directory / name / "metrics.jsonl").read_text().splitlines())
        timed = re.compile("second|time|wait|images_per")
        told = [{k: repr(v) for k, v in line.items() if not timed.search(k)} for line in lines]
        found = {"metrics": told, "results": summary.results, "card": summary.card.to_json()}
        yield _named(f"run/{name}", found)
        yield _named(f"run/{name}", jax.device_get(load_model(directory / name)[2]))


def record_evaluation(run: Path) -> Iterator[Recording]:
    """`eval.json` of a run, with every kind of shifts that needs no further data."""
    flags = ["--integer_shifts", "--fractional_shifts", "--zero_filled_shifts", "--adversarial=integer"]
    small = ["--config.eval.shifts=2", "--config.eval.max_shift=3", "--config.eval.worst_case_radius=1"]
    command = [sys.executable, "eval.py", f"--workdir={run}", *flags, *small]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (output,) = run.glob("eval*.json")
    results = json.loads(output.read_text().replace(str(run), "RUN"))
    del results["time"]
    yield _named("evaluation", results)


def record() -> Recording:
    """Records everything; prints progress to stderr."""
    jax.config.update("jax_disable_most_optimizations", True)
    found: Recording = {}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        parts = [record_recipes(), record_runs(directory), record_evaluation(directory / "plain")]
        for part in [*parts, record_networks()]:
            for entries in part:
                found |= entries
                print(
                    f"{len(found)} entries, last {next(reversed(entries), '')}", file=sys.stderr, flush=True
                )
    return found


def compare(before: Recording, after: Recording) -> list[str]:
    """Lists the differences, one per line, after renaming old names of `before`."""
    for pattern, replacement in RENAMED:
        before = {re.sub(pattern, replacement, name): value for name, value in before.items()}
    missing = [f"missing: {name}" for name in before if name not in after]
    new = [f"new: {name}" for name in after if name not in before]
    other = [f"{n}: {before[n]}, now {after[n]}" for n in before if n in after and before[n] != after[n]]
    return missing + new + other


def main(arguments: list[str]) -> int:
    """Records or compares; see the docstring of this file."""
    if arguments[:1] == ["--compare"]:
        before, after = (json.loads(Path(path).read_text()) for path in arguments[1:])
        found = compare(before, after)
        print("\n".join(found) or f"all {len(after)} entries are equal")
        return int(bool(found))
    (output,) = arguments
    Path(output).write_text(json.dumps(record(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
