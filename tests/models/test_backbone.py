from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from concept_tuning.config import BackboneConfig
from concept_tuning.errors import ConfigError
from concept_tuning.models.backbone import Backbone, build_backbone, find_architecture, last_batch_norm

#: Family, weights, by how many cells the peak may be off (a trained network looks wide), sizes (H, W) it takes.
FAMILIES = [
    ("test_resnet", "random", 0, [(128, 128), (64, 64), (128, 192)]),
    ("tf_efficientnet_lite0", "packaged", 1, [(192, 192), (96, 96), (128, 192)]),
    ("test_convnext", "random", 0, [(128, 128), (64, 64), (96, 160)]),
    ("test_mambaout", "random", 0, [(128, 128), (64, 64), (96, 160)]),
    ("test_vit", "random", 0, [(128, 128), (32, 32), (64, 96)]),
    ("test_vit2", "random", 0, [(128, 128), (32, 32), (64, 96)]),
    ("deit_tiny_distilled_patch16_224", "random", 0, [(96, 96), (32, 32), (48, 96)]),
    ("swin_tiny_patch4_window7_224", "random", 0, [(96, 96), (64, 64), (64, 128)]),
    ("swinv2_tiny_window8_256", "random", 0, [(96, 96), (64, 64), (64, 128)]),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(architecture: str, image_size: int = 64, weights: str = "random", seed: int = 0) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backbone(BackboneConfig(architecture=architecture, weights=weights), image_size=image_size)


@pytest.mark.parametrize(("architecture", "weights", "slack", "sizes"), FAMILIES, ids=[row[0] for row in FAMILIES])
@torch.no_grad()
def test_bright_square_moves_the_peak_to_its_cell(
    architecture: str, weights: str, slack: int, sizes: list[tuple[int, int]]
) -> None:
    backbone = build(architecture, image_size=sizes[0][0], weights=weights).eval()
    side = backbone.stride
    for height, width in sizes:
        rows, columns = height // side, width // side
        cells = [(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns // 2)]
        images = torch.zeros(1 + len(cells), 3, height, width)
        for image, (row, column) in zip(images[1:], cells, strict=True):
            image[:, row * side : (row + 1) * side, column * side : (column + 1) * side] = 3.0
        feature_map = backbone(images)
        assert feature_map.shape[1:] == (backbone.num_features, rows, columns)
        peaks = (feature_map[1:] - feature_map[:1]).norm(dim=1).flatten(1).argmax(dim=1).tolist()
        for peak, (row, column) in zip(peaks, cells, strict=True):
            found = divmod(peak, columns)
            assert max(abs(found[0] - row), abs(found[1] - column)) <= slack, (height, width, found, row, column)


@torch.no_grad()
def test_prefix_tokens_are_left_out() -> None:
    backbone = build("deit_tiny_distilled_patch16_224").eval()
    image = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    tokens = backbone.network.forward_features(image)
    assert tokens.shape[1] == 2 + 4 * 2
    assert torch.equal(backbone(image)[1, :, 3, 1], tokens[1, 2 + 3 * 2 + 1])


@pytest.mark.parametrize("architecture", ["test_convnext", "test_vit2"])
@torch.no_grad()
def test_cells_have_the_scale_that_the_head_sees(architecture: str) -> None:
    backbone = build(architecture).eval()
    image = torch.randn(1, 3, backbone.stride * 2, backbone.stride * 2, generator=torch.Generator().manual_seed(1))
    if architecture == "test_vit2":
        cells = backbone(image)
        assert torch.allclose(cells.mean(dim=1), torch.zeros(1, 2, 2), atol=1e-5)
        assert torch.allclose(cells.var(dim=1, unbiased=False), torch.ones(1, 2, 2), atol=1e-2)
    else:
        # With a single cell the pooled features are that cell's, so the two agree exactly.
        one_cell = image[:, :, : backbone.stride, : backbone.stride]
        pooled = backbone.network.forward_head(backbone.network.forward_features(one_cell), pre_logits=True)
        assert torch.allclose(backbone(one_cell)[:, :, 0, 0], pooled, atol=1e-6)


def test_accepts_knows_the_sizes() -> None:
    vit = build("test_vit")
    assert [size for size in (-16, 0, 8, 16, 24, 32, 40, 48, 64) if vit.accepts(size)] == [16, 32, 48, 64]
    convnext = build("test_convnext")
    assert not convnext.accepts(16)
    assert convnext.accepts(40)
    assert not build("test_vit_relpos").accepts(32)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet"])
def test_accepts_leaves_the_network_as_it_was(architecture: str) -> None:
    backbone = build(architecture).train()
    frozen = next(module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    modes = [module.training for module in backbone.modules()]
    buffers = copy.deepcopy(dict(backbone.named_buffers()))
    random_state = torch.get_rng_state()
    assert backbone.accepts(96)
    assert backbone.accepts(32)
    assert [module.training for module in backbone.modules()] == modes
    assert not frozen.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert buffers.keys() == dict(backbone.named_buffers()).keys()
    for name, value in backbone.named_buffers():
        assert torch.equal(value, buffers[name]), name


def test_accepts_runs_the_network_once_for_each_size() -> None:
    backbone = build("test_vit")
    runs: list[int] = []
    backbone.network.register_forward_pre_hook(lambda module, inputs: runs.append(1))
    backbone.network.patch_embed.register_forward_hook(lambda module, inputs, output: runs.append(1))
    for _ in range(3):
        assert backbone.accepts(64)
        assert backbone.accepts(32)
    assert len(runs) == 1


def test_out_of_memory_is_no_refusal_of_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build("test_resnet")

    def full(size: int) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(backbone, "_dry_run", full)
        with pytest.raises(torch.OutOfMemoryError):
            backbone.accepts(96)
    assert backbone.accepts(96)


def test_no_position_bias_of_a_dry_run_is_kept() -> None:
    backbone = build("levit_128s", image_size=224).eval()
    backbone.accepts(64)
    caches = [module.attention_bias_cache for module in backbone.modules() if hasattr(module, "attention_bias_cache")]
    assert len(caches) > 0
    assert all(not cache for cache in caches)


@pytest.mark.parametrize(
    ("architecture", "image_size", "stride"),
    [("test_resnet", 100, 32), ("test_resnet", 16, 32), ("test_resnet", 96, 32), ("test_vit", 48, 16)],
)
def test_stride_is_the_networks(architecture: str, image_size: int, stride: int) -> None:
    assert build(architecture, image_size=image_size).stride == stride


def test_normalise_is_mean_and_deviation_of_pre_training() -> None:
    mobile = build("mobilenetv3_small_050")
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    got = mobile.normalise(images)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = [(value - m) / s for value, m, s in zip((0, 1, 0.2), mean, std, strict=True)]
    assert got.dtype == torch.float32
    assert got.shape == (2, 3, 4, 5)
    assert torch.allclose(got[1, :, 3, 4], torch.tensor(expected), atol=1e-6)
    assert torch.equal(got, mobile.normalise(images.float()))
    lite = build("tf_efficientnet_lite0")
    assert torch.allclose(
        lite.normalise(torch.tensor([0, 255]).view(2, 1, 1, 1).expand(2, 3, 1, 1)).mean(1).flatten(),
        torch.tensor([-1.0, 1.0]),
    )
    assert not {"mean", "std"} & set(lite.state_dict())


def test_last_batch_norm_is_the_one_before_the_map() -> None:
    lite = build("tf_efficientnet_lite0").train()
    assert last_batch_norm(lite) is lite.network.bn2
    assert lite.training
    assert not lite.network.bn2._forward_hooks
    # MobileNetV3 registers nothing after its blocks that runs before the pooling.
    mobile = build("mobilenetv3_small_050")
    assert last_batch_norm(mobile) is mobile.network.blocks[-1][-1].bn1
    resnet = build("resnet18")
    assert last_batch_norm(resnet) is resnet.network.layer4[1].bn2
    assert last_batch_norm(build("test_vit")) is None


def test_every_trained_parameter_gets_a_gradient() -> None:
    backbone = build("mobilenetv3_small_050").train()
    backbone(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert not backbone.network.conv_head.weight.requires_grad
    without = [name for name, value in backbone.named_parameters() if value.requires_grad and value.grad is None]
    assert without == []
    assert sum(parameter.requires_grad for parameter in backbone.parameters()) > 50


def test_a_copy_runs_by_itself() -> None:
    backbone = build("test_resnet").eval()
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert backbone(image).abs().max() == 0
    assert twin(image).abs().max() > 0


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("resnet_50", ["timm has no network 'resnet_50'", "Did you mean", "resnet50"]),
        ("efficientnet-lite9", ["Did you mean", "efficientnet-lite"]),
        ("zzzz", ["Some that work: tf_efficientnet_lite0"]),
        ("resnet50.made_up", ["resnet50 has no pre-trained weights 'made_up'", "a1_in1k"]),
        ("hf-hub:timm/resnet18", ["timm has no network"]),
    ],
)
def test_unknown_architectures_are_named_with_the_nearest(architecture: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(architecture)
    assert all(word in str(caught.value) for word in words), caught.value


def test_aliases_and_tags() -> None:
    assert [find_architecture(f"efficientnet-lite{number}") for number in range(3)] == [
        f"tf_efficientnet_lite{number}" for number in range(3)
    ]
    assert find_architecture("resnet50.a1_in1k") == "resnet50.a1_in1k"


def test_networks_without_a_map_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"coat_tiny gives no spatial feature map.*a list of 3.*Some that work: tf_"):
        build("coat_tiny", image_size=224)
    with pytest.raises(ConfigError, match="pit_ti_224 gives 0 tokens for 64x64 px, which make no grid"):
        build("pit_ti_224")


class Fixed(nn.Module):
    """A network whose features have a shape of their own, and whose patches are merged in it."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
        self.patch_embed = PatchEmbed(img_size=64, patch_size=8, strict_img_size=False)
        self.features = nn.Parameter(torch.arange(float(math.prod(shape))).view(shape))

    def forward_features(self, images: Tensor) -> Tensor:
        return self.features


def test_features_of_odd_shapes_are_refused() -> None:
    for shape, words in (((1, 8), r"but a tensor of shape \(1, 8\)"), ((1, 7, 8), "7 tokens for 64x64 px")):
        with pytest.raises(ConfigError, match=words):
            Backbone(Fixed(*shape), architecture="odd", image_size=64)


def test_tokens_that_were_merged_after_their_embedding_still_make_a_grid() -> None:
    backbone = Backbone(Fixed(1, 16, 3), architecture="merging", image_size=64)
    assert (backbone.stride, backbone.num_features) == (16, 3)
    assert torch.equal(backbone(torch.zeros(1, 3, 64, 64))[0, :, 2, 1], backbone.network.features[0, 2 * 4 + 1])


def test_sizes_a_network_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"test_vit does not take images of 100x100 px.*multiple of 16.*160"):
        build("test_vit", image_size=100)
    with pytest.raises(
        ConfigError, match=r"levit_128s does not take images of 100x100 px.*224, as in its pre-training"
    ):
        build("levit_128s", image_size=100)
    with pytest.raises(ConfigError, match=r"xcit_nano_12_p16_224 does not take images of 100x100 px.*224, as in its"):
        build("xcit_nano_12_p16_224", image_size=100)
