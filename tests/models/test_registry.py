"""Networks by name, and errors for unknown names, options and parts."""

import pytest

import aliasfree_jax
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.normalization import InstanceNorm
from aliasfree_jax.layers.sampling import BlurPool
from aliasfree_jax.models import create_model, list_models

SIZES = (
    *("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge", "xxlarge"),
    *("micro", "cifar"),
)
FAMILIES = ("convnext", "convnext_circular", "convnext_aps", "convnext_afc", "convnext_afg")


def test_every_family_in_every_size():
    assert set(list_models()) >= {f"{family}_{size}" for family in FAMILIES for size in SIZES}
    assert list_models() == sorted(list_models())
    for name in list_models():
        network = create_model(name, num_classes=7)
        assert network == create_model(name, num_classes=7) != create_model(name, num_classes=8)
        assert network.num_classes == 7 and network.total_stride >= 1


def test_patterns():
    assert list_models("convnext_afc_*") == sorted(f"convnext_afc_{size}" for size in SIZES)
    assert list_models("convnext_aps_tiny") == ["convnext_aps_tiny"]
    assert list_models("nothing*") == []
    assert list_models("convnext*_micro") == sorted(f"{family}_micro" for family in FAMILIES)


def test_what_the_package_offers():
    networks = {"create_model", "list_models", "list_pretrained", "load_pretrained"}
    programs = {"Oversample", "audit", "check", "shift_invariant"}
    assert set(aliasfree_jax.__all__) == {"__version__"} | networks | programs
    with pytest.raises(AttributeError, match="no attribute 'creat_model'"):
        _ = aliasfree_jax.creat_model


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("convnext_afc_tny", {}, "unknown model 'convnext_afc_tny'. Did you mean 'convnext_afc_tiny'"),
        ("convnext_tiny", {"droppath": 0.1}, "unknown option of convnext 'droppath'.*'drop_path_rate'"),
        ("convnext_tiny", {"num_clases": 5}, "Did you mean 'num_classes'"),
        ("convnext_tiny", {"parent": None}, "unknown option of convnext 'parent'"),
        ("convnext_tiny", {"numerics": None}, "unknown option of convnext 'numerics'"),
        ("convnext_tiny", {"sampler": "idea"}, "unknown sampler 'idea'. Did you mean 'ideal'"),
        ("convnext_tiny", {"activation": "up_poly"}, "unknown activation 'up_poly'.*'up_polynomial'"),
        ("convnext_tiny", {"stem_activation": "gelo"}, "unknown stem_activation 'gelo'. Did you mean 'gelu'"),
        (
            "convnext_tiny",
            {"norm": "layer"},
            "unknown norm 'layer'. Known: batch, bounded_batch, channel, group",
        ),
        ("convnext_tiny", {"norm": {}}, "unknown norm None"),
        ("convnext_tiny", {"norm": "group"}, "norm 'group' needs the option 'num_groups'"),
        (
            "convnext_tiny",
            {"norm": None},
            "expected the norm as a name, dictionary or module class, got None",
        ),
        (
            "convnext_tiny",
            {"sampler": 5},
            "expected the sampler as a name, dictionary or module class, got 5",
        ),
        (
            "convnext_tiny",
            {"sampler": {"name": "blur", "kernel_sze": 3}},
            "unknown option of sampler 'blur' 'kernel_sze'.*'kernel_size'",
        ),
        (
            "convnext_tiny",
            {"sampler": {"name": "blur", "strides": 3}},
            "unknown option of sampler 'blur' 'strides'",
        ),
        (
            "convnext_tiny",
            {"sampler": {"name": "norm_preserving", "inner": "ideel"}},
            "unknown sampler 'ideel'. Did you mean 'ideal'",
        ),
        ("convnext_tiny", {"padding": "CIRCLAR"}, "unknown padding 'CIRCLAR'. Did you mean 'CIRCULAR'"),
        ("convnext_tiny", {"sampled_padding": "wrap"}, "unknown padding 'wrap'"),
        (
            "convnext_tiny",
            {"sampler": BlurPool(kernel_size=5)},
            r"got a module: .* layers.Factory\(BlurPool, ...\)",
        ),
        ("convnext_tiny", {"mlp_grid": "fin"}, "unknown mlp_grid 'fin'. Did you mean 'fine'"),
        ("convnext_tiny", {"remat": "blok"}, "unknown remat 'blok'. Did you mean 'block'"),
        (
            "convnext_tiny",
            {"precision": "hihest"},
            "unknown precision 'hihest'. Did you mean 'highest'",
        ),
        (
            "convnext_tiny",
            {"dtype": "bfloat"},
            'dtype must be a floating-point format of JAX, such as "bfloat16", got .bfloat.',
        ),
        ("convnext_tiny", {"precision": "bfloat16"}, 'For number formats use dtype="bfloat16"'),
        ("convnext_tiny", {"param_dtype": 3}, "param_dtype must be a floating-point format of JAX"),
        (
            "convnext_tiny",
            {"depths": (1, 1)},
            r"depths \(1, 1\) and widths .* must have the same length",
        ),
        ("convnext_aps_tiny", {"any_size": True}, "any_size=True needs the ideal sampler, got 'polyphase'"),
        ("convnext_tiny", {"any_size": True}, "any_size=True needs the ideal sampler, got 'subsample'"),
        (
            "convnext_afc_tiny",
            {"any_size": True, "sampler": BlurPool},
            "any_size=True needs the ideal sampler",
        ),
        ("convnext_afc_tiny", {"stem_stride": 1}, "with stem_stride=1 use stem_activation=None"),
        ("convnext_afg_tiny", {"mlp_ratio": 0}, "mlp_ratio must be positive, got 0"),
        ("convnext_afg_tiny", {"stem_stride": 1}, "lowpass_gate needs .* use stem_activation=None"),
        ("convnext_tiny", {"final_norm": "batch"}, "'batch' needs a map: use final_norm_position='map'"),
        ("convnext_tiny", {"final_norm": "chanel"}, "unknown final_norm 'chanel'. Did you mean 'channel'"),
        ("convnext_tiny", {"final_norm_position": "pool"}, "unknown final_norm_position 'pool'"),
        ("convnext_tiny", {"downsampled_stages": "al"}, "Did you mean 'all'"),
        ("densenet121", {"activation": "up_gate"}, "unknown activation 'up_gate'. .*'up_self_gate'"),
        ("resnet18", {"activation": "gate"}, "sum_activation must keep .* set sum_activation='identity'"),
        ("resnet18_afg", {"sum_activation": "up_gate"}, "sum_activation must keep the number"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        create_model(name, **options)


def test_parts_by_name_dictionary_and_class():
    network = create_model(
        "convnext_micro",
        sampler={"name": "blur", "kernel_size": 5},
        norm=InstanceNorm,
        stem_activation=None,
        activation="relu",
    )
    assert network.sampler(strides=4).kernel_size == 5
    assert network.norm is InstanceNorm
    assert type(network.activation()).__name__ == "Relu"


def test_any_size_reaches_the_sampler():
    assert create_model("convnext_afc_tiny", any_size=True).sampler(strides=2).any_size
    assert not create_model("convnext_afc_tiny", any_size=False).sampler(strides=2).any_size
    sampler = {"name": "ideal", "any_size": True}
    assert create_model("convnext_circular_tiny", sampler=sampler).sampler(strides=2).any_size


@pytest.mark.parametrize(("stride", "cutoff"), [(4, 0.75), (2, 0.5)])
def test_the_stems_cutoff_suits_its_stride(stride, cutoff):
    for name in ("convnext_afc_tiny", "convnext_afg_tiny"):
        assert create_model(name, stem_stride=stride).stem_activation().cutoff == cutoff
    stated = {"name": "lowpass_polynomial", "cutoff": 0.3}
    assert create_model("convnext_afc_tiny", stem_activation=stated).stem_activation().cutoff == 0.3


def test_options_from_json_have_lists():
    network = create_model("convnext_micro", depths=[1, 2], widths=[4, 8])
    assert (network.depths, network.widths) == ((1, 2), (4, 8))
    hash(network)  # modules are static arguments of jit
