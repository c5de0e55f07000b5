"""Mixup and CutMix: what is blended, in which shares, and how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from aliasfree_jax.config import base_config
from aliasfree_jax.training.mixing import Mixing, mix, write_contact_sheet

BATCH, GROUP, SIDE = 24, 8, 16


@pytest.fixture(scope="module")
def batch():
    images = np.random.default_rng(0).standard_normal((BATCH, SIDE, SIDE, 3)).astype(np.float32)
    return jnp.asarray(images), jnp.arange(BATCH)


def partners_of(array):
    return np.asarray(array).reshape(-1, GROUP, *array.shape[1:])[:, ::-1].reshape(array.shape)


def mixed_by(batch, seeds, how):
    """The results of `mix` for each seed, computed by one program."""
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    found = jax.jit(jax.vmap(lambda key: mix(*batch, key, how)))(keys)
    return zip(*map(np.asarray, found), strict=True)


def test_mixup_blends_with_the_reversed_group(batch):
    images, labels = map(np.asarray, batch)
    for mixed, partners, share in mixed_by(batch, 5, Mixing(mixup=0.8, group=GROUP)):
        np.testing.assert_array_equal(partners, partners_of(labels))
        own = share[:, None, None, None]
        # float32 rounding of a blend of numbers up to 4
        np.testing.assert_allclose(mixed, own * images + (1 - own) * partners_of(images), atol=1e-6)
        shares = share.reshape(-1, GROUP)
        assert (shares == shares[:, :1]).all() and len(set(shares[:, 0].tolist())) == BATCH // GROUP
        assert 0 <= shares.min() <= shares.max() <= 1


def test_cutmix_pastes_a_box_and_counts_it(batch):
    images = np.asarray(batch[0])
    for mixed, _, share in mixed_by(batch, 8, Mixing(cutmix=1.0, group=GROUP)):
        pasted = (mixed != images).any(-1)
        np.testing.assert_array_equal(mixed, np.where(pasted[..., None], partners_of(images), images))
        for image, own in zip(pasted, share, strict=True):
            rows, columns = image.any(1), image.any(0)
            np.testing.assert_array_equal(image, rows[:, None] & columns[None])  # one box
            assert own == pytest.approx(1 - image.mean(), abs=1e-6)


def shares(how, count=3000, side=8):
    images = jnp.zeros((count * 2, side, side, 1)).at[::2].set(1.0)
    mixed, _, share = jax.jit(mix, static_argnums=3)(
        images, jnp.zeros(count * 2, int), jax.random.key(0), how
    )
    cut = np.asarray(((mixed == 0) | (mixed == 1)).all(axis=(1, 2, 3)))
    return np.asarray(share)[::2], cut[::2]


def test_the_share_of_mixup_has_the_beta_distribution():
    share, _ = shares(Mixing(mixup=0.8, group=2))
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)); 3000 draws, 4 standard errors
    assert abs(share.mean() - 0.5) < 4 * np.sqrt(share.var() / 3000)
    assert share.var() == pytest.approx(1 / (4 * 2.6), rel=0.06)


def test_the_share_of_cutmix_before_the_border_is_uniform():
    """The border clips the box, so shares can only grow: the mean is between 1/2 and that of no box."""
    share, cut = shares(Mixing(cutmix=1.0, group=2), side=32)
    assert cut.all()
    assert 0.6 < share.mean() < 0.75 and share.min() < 0.3 and share.max() == 1


def test_switch_and_probability():
    _, cut = shares(Mixing(mixup=0.8, cutmix=1.0, switch=0.25, group=2))
    assert abs(cut.mean() - 0.25) < 0.05  # 4 standard errors are 0.03; shares near 0 or 1 are rounded
    share, _ = shares(Mixing(mixup=0.8, cutmix=1.0, probability=0.5, group=2))
    assert 0.5 <= (share == 1).mean() < 0.6  # boxes without a pixel add some
    share, _ = shares(Mixing(mixup=0.8, probability=0.0, group=2))
    assert (share == 1).all()


def test_it_needs_no_exchange_between_devices(batch):
    """Each group is on one device. Only the order of the labels changes, within a device."""
    images, labels = jnp.tile(batch[0], (4, 1, 1, 1))[:64], jnp.arange(64)
    mesh = jax.make_mesh((4,), ("data",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    how = Mixing(mixup=0.8, cutmix=1.0, group=16)
    one = jax.jit(mix, static_argnums=3)(images, labels, jax.random.key(5), how)
    compiled = (
        jax.jit(mix, static_argnums=3, in_shardings=(spread, spread, None), out_shardings=spread)
        .lower(images, labels, jax.random.key(5), how)
        .compile()
    )
    text = compiled.as_text()
    assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute"))
    many = compiled(jax.device_put(images, spread), jax.device_put(labels, spread), jax.random.key(5))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("images", [4, 5, 16])
def test_the_picture_of_fewer_images_than_a_group(images, batch, tmp_path):
    """Each of several processes draws its own part of a batch."""
    config = base_config()
    config.train.mixing.update({"mixup": 0.8, "group": 8})
    write_contact_sheet(config, tmp_path / "augmented.png", np.asarray(batch[0][:images]))
    assert Image.open(tmp_path / "augmented.png").size[1] > SIDE
