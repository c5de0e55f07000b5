"""PyTorch networks for comparison: plain ConvNeXt, and the alias-free one at its original cost.

`python -m benchmarks` runs them in a separate process, so this file imports nothing of the package. The
alias-free network has the original's cost. Each ideal filter is an rfft2 and an irfft2. Interpolation inserts
zeros first. The pointwise layers of a block run on the doubled grid. The convolutions of stem and
downsampling run at full resolution, before their filter. At 224 x 224 the tiny sizes need 4.46 and 17.68
GMAC. Parameter names are the original's. Filter masks depend on the input's size and are not stored in the
state. There is no stochastic depth. Maps are NCHW unless stated otherwise. ResNet-20 is that of He et al.
2016 for CIFAR-10 (section 4.2), with projection shortcuts.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Ints = Sequence[int]
DEPTHS, WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)  # tiny
EPS = LAYER_SCALE = 1e-6
ACTIVATION_SCALE = 7.0
GELU_FIT = (0.0169394634313126, 0.5, 0.3078363963999393)  # least-squares quadratic


class _PixelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _SampleNorm(nn.Module):
    """Subtracts each pixel's mean over channels, and divides by one standard deviation per image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(1, keepdim=True)
        x = x / torch.sqrt(x.pow(2).mean((1, 2, 3), keepdim=True) + EPS)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def _mask(size: int, cutoff: float, top: float) -> Tensor:
    """The 1-D mask of frequencies below `cutoff` (1 is Nyquist). `top` is the weight of the highest one."""
    low = int(size * cutoff // 2)
    mask = torch.ones(size)
    mask[low + 1 : size - low] = 0
    if size % 4 == 0:
        mask[low] = mask[size - low] = top
    return mask


class _IdealFilter(nn.Module):
    """Ideal low-pass filter by FFT on the full map, then every `stride`-th row and column."""

    rect: Tensor

    def __init__(self, cutoff: float, top: float = 0.0, stride: int = 1) -> None:
        super().__init__()
        self.cutoff, self.top, self.stride = cutoff, top, stride
        self.register_buffer("rect", torch.empty(0, 0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.rect.shape != (height, width // 2 + 1):
            with torch.inference_mode(False):  # masks made in inference mode cannot be used in training
                rows, columns = (_mask(size, self.cutoff, self.top) for size in (height, width))
                self.rect = torch.outer(rows, columns[: width // 2 + 1]).to(x.device)
        spectrum = torch.fft.rfft2(x.float())  # FFTs do not support bfloat16
        y = torch.fft.irfft2(spectrum * self.rect, s=(height, width)).to(x.dtype)
        return y[:, :, :: self.stride, :: self.stride]


class _Upsample(_IdealFilter):
    """Ideal interpolation by 2: inserts zeros, then applies the reconstruction filter."""

    def forward(self, x: Tensor) -> Tensor:
        stuffed = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        stuffed[:, :, ::2, ::2] = x
        return 4 * super().forward(stuffed)


class _Polynomial(nn.Module):
    """Quadratic activation per channel with trained input and output scales, on NHWC maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coef = nn.Parameter(torch.tensor(GELU_FIT).reshape(1, 3, 1, 1).repeat(channels, 1, 1, 1))
        self.in_scale = nn.Parameter(torch.full((1,), ACTIVATION_SCALE))
        self.out_scale = nn.Parameter(torch.full((1,), ACTIVATION_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        constant, linear, quadratic = self.coef[:, :, 0, 0].unbind(1)
        u = self.in_scale * x
        return self.out_scale * (constant + linear * u + quadratic * u.pow(2))


class _FilteredPolynomial(_Polynomial):
    """The stem's activation on NCHW maps: one factor of the square is low-passed at 3/4 of the band."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lpf = _IdealFilter(3 / 4)

    def forward(self, x: Tensor) -> Tensor:
        constant, linear, quadratic = self.coef.unbind(1)
        u = self.in_scale * x
        return self.out_scale * (constant + linear * u + quadratic * u * self.lpf(u))


class _StemActivation(nn.Module):
    """Adds the stem's activation, times a trained scalar (initially 0), to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.residual = nn.Sequential(_FilteredPolynomial(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.residual(x)


class _PlainBlock(nn.Module):
    """ConvNeXt block: depthwise 7 x 7, then layer norm and pointwise layers with channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class _AliasFreeMLP(nn.Module):
    """Pointwise layers on a doubled grid: interpolates by 2, then low-passes and subsamples by 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample = _Upsample(1 / 2, top=0.5)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = _Polynomial(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.lpf = _IdealFilter(1 / 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.upsample(x).permute(0, 2, 3, 1)
        y = self.pwconv2(self.act(self.pwconv1(y)))
        return self.lpf(y.permute(0, 3, 1, 2))


class _AliasFreeBlock(nn.Module):
    """Alias-free block: circular depthwise 7 x 7, norm per image, pointwise layers on the doubled grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.dwconv = _circular(nn.Conv2d(channels, channels, 7, groups=channels), (3, 3, 3, 3))
        self.norm = _SampleNorm(channels)
        self.mlp = _AliasFreeMLP(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma[:, None, None] * self.mlp(self.norm(self.dwconv(x)))


class _ConvNeXt(nn.Module):
    """Four stages of downsampling and blocks, then mean, layer norm and head."""

    def __init__(
        self, down: list[nn.Sequential], block: type[nn.Module], depths: Ints, widths: Ints, classes: int
    ) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList(down)
        sizes = zip(depths, widths, strict=True)
        self.stages = nn.ModuleList(nn.Sequential(*map(block, [width] * depth)) for depth, width in sizes)
        self.norm = nn.LayerNorm(widths[-1], eps=EPS)
        self.head = nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return self.head(self.norm(x.mean((-2, -1))))


def _circular(convolution: nn.Conv2d, padding: tuple[int, int, int, int]) -> nn.Sequential:
    """The convolution after circular padding (left, right, top, bottom)."""
    return nn.Sequential(nn.CircularPad2d(padding), convolution)


def plain_convnext(depths: Ints = DEPTHS, widths: Ints = WIDTHS, num_classes: int = 1000) -> nn.Module:
    """Plain ConvNeXt, by default tiny. Maps images `[N, 3, H, W]` to logits."""
    downsampling = [nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), _PixelNorm(widths[0], eps=EPS))]
    for inner, outer in zip(widths[:-1], widths[1:], strict=True):
        downsampling.append(nn.Sequential(_PixelNorm(inner, eps=EPS), nn.Conv2d(inner, outer, 2, stride=2)))
    return _ConvNeXt(downsampling, _PlainBlock, depths, widths, num_classes)


def alias_free_convnext(depths: Ints = DEPTHS, widths: Ints = WIDTHS, num_classes: int = 1000) -> nn.Module:
    """Alias-free ConvNeXt as published, by default tiny. Maps images `[N, 3, H, W]` to logits.

    It is alias-free if H and W are multiples of 32 and at least 96.
    """
    stem = _circular(nn.Conv2d(3, widths[0], 4), (1, 2, 1, 2))
    downsampling = [
        nn.Sequential(stem, _StemActivation(widths[0]), _IdealFilter(1 / 4, stride=4), _SampleNorm(widths[0]))
    ]
    for inner, outer in zip(widths[:-1], widths[1:], strict=True):
        convolution = _circular(nn.Conv2d(inner, outer, 2), (0, 1, 0, 1))
        downsampling.append(nn.Sequential(_SampleNorm(inner), convolution, _IdealFilter(1 / 2, stride=2)))
    return _ConvNeXt(downsampling, _AliasFreeBlock, depths, widths, num_classes)


class _ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, which is a projection if the size changes."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3(inner, outer, stride), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = _conv3(outer, outer), nn.BatchNorm2d(outer)
        projection = (nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        self.shortcut = nn.Sequential(*projection) if inner != outer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def _conv3(inner: int, outer: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)


def resnet20(num_classes: int = 1000) -> nn.Module:
    """Plain ResNet-20. Maps images `[N, 3, 32, 32]` to logits."""
    layers: list[nn.Module] = [_conv3(3, 16), nn.BatchNorm2d(16), nn.ReLU()]
    for inner, outer in ((16, 16), (16, 32), (32, 64)):
        layers.append(_ResidualBlock(inner, outer, outer // inner))
        layers += [_ResidualBlock(outer, outer, 1) for _ in range(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
