import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.tokenizer.tiled import TiledTokenizer
from dreamdojo.tokenizer.wan import Down, TimeConv, Up, WanConfig, WanTokenizer
from tests.tiny import tiny_tokenizer

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def tiny_wan(**changes) -> WanTokenizer:
    torch.manual_seed(0)
    settings = {"width": 4, "latent_channels": 3, "blocks": 1}
    model = WanTokenizer(WanConfig(**{**settings, **changes})).eval().requires_grad_(False)
    model.latent_mean.copy_(torch.linspace(-0.5, 0.5, model.latent_channels))
    model.latent_std.copy_(torch.linspace(0.2, 0.8, model.latent_channels))
    return model


def video(frames: int, batch: int = 2, height: int = 16, width: int = 24, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(batch, frames, 3, height, width, generator=random) * 2 - 1


def random_latents(model: WanTokenizer, num: int, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, num, model.latent_channels, 2, 3, generator=torch.Generator().manual_seed(seed))


def stream(code, whole: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    parts, state = [], None
    for part in whole.split(lengths, dim=1):
        out, state = code(part, state)
        parts.append(out)
    return torch.cat(parts, dim=1)


def test_the_published_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        parameters = list(WanTokenizer(WanConfig()).parameters())
    assert sum(p.numel() for p in parameters) == 126_892_531 and len(parameters) == 194
    assert all(p.is_meta for p in parameters)


def test_the_published_size_has_the_published_statistics_and_another_has_none():
    config = {"width": 2, "multipliers": (1, 1), "temporal_down": (True,), "blocks": 1}
    model = WanTokenizer(WanConfig(**config))
    assert model.latent_mean[[0, 15]].tolist() == pytest.approx([-0.7571, -0.2921])
    assert model.latent_std[[0, 15]].tolist() == pytest.approx([2.8184, 1.9160])
    other = WanTokenizer(WanConfig(**config, latent_channels=3))
    assert other.latent_mean.tolist() == [0, 0, 0] and other.latent_std.tolist() == [1, 1, 1]


def test_all_tokenizers_satisfy_the_protocol():
    for model in (tiny_tokenizer(), tiny_wan(), TiledTokenizer(tiny_wan(), tile=24, overlap=8)):
        assert isinstance(model, VideoTokenizer)
    wan = tiny_wan()
    assert (wan.latent_channels, wan.spatial_factor, wan.temporal_factor) == (3, 8, 4)
    assert [wan.num_latents(n) for n in (1, 5, 13)] == [1, 2, 4]


@pytest.mark.parametrize("cut", [[1, 12], [5, 8], [9, 4], [1, 4, 4, 4], [5, 4, 4]])
def test_a_video_encoded_in_parts_equals_the_whole(cut):
    model, frames = tiny_wan(), video(13)
    whole, _ = model.encode(frames)
    assert whole.shape == (2, 4, 3, 2, 3) and whole.dtype == torch.float32
    torch.testing.assert_close(stream(model.encode, frames, cut), whole, **CLOSE)


@pytest.mark.parametrize("cut", [[1, 3], [2, 2], [3, 1], [1, 1, 1, 1]])
def test_latents_decoded_in_parts_equal_the_whole(cut):
    model = tiny_wan()
    latents = random_latents(model, 4)
    whole, _ = model.decode(latents)
    assert whole.shape == (2, 13, 3, 16, 24) and whole.dtype == torch.float32
    torch.testing.assert_close(stream(model.decode, latents, cut), whole, **CLOSE)


def test_every_sample_of_a_batch_is_coded_as_if_alone():
    model, frames = tiny_wan(), video(5, batch=3)
    latents, _ = model.encode(frames)
    drawn, _ = model.decode(latents)
    for i in range(3):
        torch.testing.assert_close(model.encode(frames[i : i + 1])[0], latents[i : i + 1], **CLOSE)
        torch.testing.assert_close(model.decode(latents[i : i + 1])[0], drawn[i : i + 1], **CLOSE)


def test_latents_and_frames_do_not_see_the_future():
    model, frames = tiny_wan(), video(13)
    before, _ = model.encode(frames)
    for latent in range(1, 4):
        changed = frames.clone()
        changed[:, 1 + 4 * (latent - 1) :] *= -1
        after, _ = model.encode(changed)
        torch.testing.assert_close(after[:, :latent], before[:, :latent], atol=0, rtol=0)
        assert all(not torch.allclose(after[:, i], before[:, i]) for i in range(latent, 4))

    latents = random_latents(model, 4)
    drawn, _ = model.decode(latents)
    latents[:, 2:] *= -1
    redrawn, _ = model.decode(latents)
    torch.testing.assert_close(redrawn[:, :5], drawn[:, :5], atol=0, rtol=0)
    assert all(not torch.allclose(redrawn[:, i], drawn[:, i]) for i in range(5, 13))


def test_a_latent_depends_on_each_of_its_frames():
    model, frames = tiny_wan(), video(9)
    before, _ = model.encode(frames)
    for index in range(5, 9):
        changed = frames.clone()
        changed[:, index] *= -1
        after, _ = model.encode(changed)
        assert not torch.allclose(after[:, 2], before[:, 2]), index


def test_an_image_is_a_video_of_one_frame():
    model, frames = tiny_wan(), video(5)
    latent, _ = model.encode(frames[:, :1])
    torch.testing.assert_close(latent, model.encode(frames)[0][:, :1], **CLOSE)
    drawn, _ = model.decode(latent)
    assert drawn.shape == (2, 1, 3, 16, 24)


def test_coding_on_leaves_a_state_as_it_was():
    model, frames = tiny_wan(), video(9)
    latents = random_latents(model, 3)
    for code, first, then in (
        (model.encode, frames[:, :5], frames[:, 5:]),
        (model.encode, frames[:, :1], frames[:, 1:]),
        (model.decode, latents[:, :1], latents[:, 1:]),
    ):
        _, state = code(first, None)
        copies = [tensor.clone() for tensor in state]
        once, _ = code(then, state)
        again, _ = code(then, state)
        assert torch.equal(once, again)
        assert all(torch.equal(a, b) for a, b in zip(state, copies, strict=True))


def test_a_state_does_not_change_with_the_frames_it_came_from():
    model, frames = tiny_wan(), video(5)
    first = frames[:, :1].movedim(2, -1).contiguous().movedim(-1, 2)  # laid out as the model has it inside
    _, state = model.encode(first)
    expected, _ = model.encode(frames[:, 1:], state)
    first.zero_()
    torch.testing.assert_close(model.encode(frames[:, 1:], state)[0], expected, atol=0, rtol=0)


def test_a_state_is_forked_by_expanding_its_batch():
    model, frames = tiny_wan(), video(9, batch=1)
    latents, state = model.encode(frames[:, :5])
    _, decoder = model.decode(latents)
    branches = video(4, batch=3, seed=1)
    forked, _ = model.encode(branches, tuple(tensor.expand(3, *tensor.shape[1:]) for tensor in state))
    drawn, _ = model.decode(forked, tuple(tensor.expand(3, *tensor.shape[1:]) for tensor in decoder))
    for i in range(3):
        alone, _ = model.encode(branches[i : i + 1], state)
        torch.testing.assert_close(forked[i : i + 1], alone, **CLOSE)
        torch.testing.assert_close(drawn[i : i + 1], model.decode(alone, decoder)[0], **CLOSE)


def test_weights_in_bfloat16_give_nearly_the_same_in_float32_and_statistics_keep_their_precision():
    model, small = tiny_wan(width=16), tiny_wan(width=16).to(torch.bfloat16)
    assert small.encoder.conv_in.weight.dtype == torch.bfloat16
    assert small.latent_mean.dtype == torch.float32 and torch.equal(small.latent_std, model.latent_std)
    frames = video(5)
    expected, _ = model.encode(frames)
    latents, state = small.encode(frames)
    assert latents.dtype == torch.float32 and all(tensor.dtype == torch.bfloat16 for tensor in state)
    assert (latents - expected).norm() < 0.03 * (expected - expected.mean()).norm()
    drawn, _ = small.decode(expected)
    target, _ = model.decode(expected)
    assert drawn.dtype == torch.float32 and (drawn - target).norm() < 0.03 * target.norm()


def test_gradients_foretell_how_the_loss_changes():
    model = tiny_wan().double().requires_grad_(True)
    latents = random_latents(model, 2).requires_grad_(True)
    goal = video(5).double()

    def loss(z):
        drawn, _ = model.decode(z)
        return (drawn.double() - goal).square().sum() + model.encode(drawn)[0].square().sum()

    (gradient,) = torch.autograd.grad(loss(latents), latents)
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        change = loss(latents + step) - loss(latents - step)
    torch.testing.assert_close(change.item(), 2 * (gradient * step).sum().item(), atol=0, rtol=2e-2)


def test_what_does_not_fit_is_refused():
    model = tiny_wan()
    with pytest.raises(DataError, match=r"1 \+ 4 n frames .*, got 4"):
        model.encode(video(4))
    _, state = model.encode(video(1))
    with pytest.raises(DataError, match="4 n frames after the first call, got 5"):
        model.encode(video(5), state)
    with pytest.raises(DataError, match="got 0"):
        model.encode(video(0), state)
    with pytest.raises(DataError, match=r"20x24 do not divide .* 8.*16x24"):
        model.encode(video(1, height=20))
    with pytest.raises(DataError, match="RGB"):
        model.encode(torch.zeros(1, 1, 4, 16, 16))
    with pytest.raises(DataError, match=r"continues frames \(1, 3, 16, 24\)"):
        model.encode(video(4, batch=1), state)
    with pytest.raises(DataError, match="c = 3"):
        model.decode(torch.zeros(1, 1, 4, 2, 2))
    with pytest.raises(DataError, match="t of at least 1"):
        model.decode(random_latents(model, 0))
    with pytest.raises(DataError, match="expected a state of"):
        model.decode(random_latents(model, 1), state)
    with pytest.raises(DataError, match="found 0 tensors"):
        model.decode(random_latents(model, 1), ())
    with pytest.raises(ConfigError, match="each halving"):
        WanConfig(multipliers=(1, 2))
    with pytest.raises(ConfigError, match="even"):
        WanConfig(width=3)
    with pytest.raises(ConfigError, match="blocks must be at least 1"):
        WanConfig(blocks=0)


def test_a_frame_at_a_time_is_the_convolution_over_zeros_and_the_whole_video():
    conv, x, memory = TimeConv(2, 5), torch.randn(2, 2, 4, 6, 8), {}
    frames = torch.stack([conv(frame, memory) for frame in x.unbind(2)], dim=2)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1, 2, 0))
    torch.testing.assert_close(frames, torch.nn.functional.conv3d(padded, conv.weight, conv.bias), **CLOSE)


def test_down_in_time_lets_frame_0_pass_and_joins_every_two_after_it_with_the_one_before():
    down, x, memory = Down(2, in_time=True), torch.randn(1, 2, 5, 6, 8), {}
    down.space = torch.nn.ZeroPad2d((0, -1, 0, -1))  # takes the padding off again
    first, *later = [down(frame, memory) for frame in x.unbind(2)]
    assert torch.equal(first, x[:, :, 0]) and later[0] is None and later[2] is None
    expected = torch.nn.functional.conv3d(x, down.time.weight, down.time.bias, stride=(2, 1, 1))
    torch.testing.assert_close(torch.stack(later[1::2], dim=2), expected, **CLOSE)


def test_up_in_time_lets_frame_0_pass_and_forgets_it():
    up, x, memory = Up(2, in_time=True), torch.randn(1, 2, 4, 6, 8), {}
    up.space = torch.nn.Identity()
    first, *later = [frame[..., ::2, ::2] for latent in x.unbind(2) for frame in up(latent, memory)]
    assert torch.equal(first, x[:, :, 0]) and len(later) == 6
    after = torch.nn.functional.pad(x[:, :, 1:], (0, 0, 0, 0, 2, 0))
    pairs = torch.nn.functional.conv3d(after, up.time.weight, up.time.bias)
    torch.testing.assert_close(torch.stack(later[0::2], dim=2), pairs[:, :2], **CLOSE)
    torch.testing.assert_close(torch.stack(later[1::2], dim=2), pairs[:, 2:], **CLOSE)


class Blocks:
    """Averages of 2x2 blocks, each after the sum of all before it in time: local in space, causal, and linear."""

    latent_channels, spatial_factor, temporal_factor = 3, 2, 1

    def num_latents(self, num_frames):
        return num_frames

    def encode(self, frames, state=None):
        small = torch.nn.functional.avg_pool2d(frames.flatten(0, 1), 2).unflatten(0, frames.shape[:2])
        summed = small.cumsum(dim=1) + (state[0][:, None] if state else 0)
        return summed, (summed[:, -1],)

    def decode(self, latents, state=None):
        return latents.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2), ()


class Numbered(Blocks):
    """Every call gives the next number everywhere, so that each tile shows where it counts."""

    def __init__(self):
        self.calls = 0

    def decode(self, latents, state=None):
        frames, state = super().decode(latents, state)
        self.calls += 1
        return torch.full_like(frames, float(self.calls)), state


def test_one_tile_equals_no_tiles():
    model, frames = tiny_wan(), video(5)
    tiled = TiledTokenizer(model, tile=24, overlap=8)
    latents, state = model.encode(frames)
    in_tiles, tiled_state = tiled.encode(frames)
    assert torch.equal(in_tiles, latents) and len(tiled_state) == len(state)
    assert torch.equal(tiled.decode(latents)[0], model.decode(latents)[0])


@pytest.mark.parametrize(("height", "width"), [(40, 64), (12, 14), (16, 100), (18, 12), (2, 4)])
def test_tiles_of_what_is_local_equal_the_whole(height, width):
    tiled, frames = TiledTokenizer(Blocks(), tile=12, overlap=4), video(5, height=height, width=width)
    whole, _ = Blocks().encode(frames)
    torch.testing.assert_close(tiled.encode(frames)[0], whole)
    torch.testing.assert_close(stream(tiled.encode, frames, [1, 3, 1]), whole)
    torch.testing.assert_close(stream(tiled.decode, whole, [1, 4]), Blocks().decode(whole)[0])


def test_from_tile_to_tile_the_picture_changes_gradually():
    blocks = Numbered()
    tiled = TiledTokenizer(blocks, tile=24, overlap=8)
    row = tiled.decode(torch.zeros(1, 1, 3, 4, 40))[0][0, 0, 0, 0]
    assert blocks.calls == 5 and row[0] == 1 and row[-1] == 5
    steps = row.diff()
    assert steps.min() >= 0 and steps.max() == pytest.approx(1 / 8, abs=1e-6)


def test_tiles_stream_and_fork():
    model = tiny_wan()
    tiled, frames = TiledTokenizer(model, tile=24, overlap=8), video(9, batch=1, height=40, width=40)
    whole, _ = tiled.encode(frames)
    torch.testing.assert_close(stream(tiled.encode, frames, [1, 4, 4]), whole, **CLOSE)
    drawn, _ = tiled.decode(whole)
    assert drawn.shape == frames.shape
    torch.testing.assert_close(stream(tiled.decode, whole, [2, 1]), drawn, **CLOSE)
    _, state = tiled.encode(frames[:, :5])
    forked, _ = tiled.encode(frames[:, 5:].expand(2, -1, -1, -1, -1), tuple(t.expand(2, -1, -1, -1) for t in state))
    torch.testing.assert_close(forked, whole[:, 2:].expand(2, -1, -1, -1, -1), **CLOSE)


def test_tiles_are_exact_where_the_tokenizer_sees_no_border():
    model = tiny_wan(multipliers=(1, 1), temporal_down=(True,), width=8)
    for attention in (model.encoder.middle.attention, model.decoder.middle.attention):
        attention.out.weight.zero_()
        attention.out.bias.zero_()
    tiled = TiledTokenizer(model, tile=192, overlap=64)  # the decoder sees 13 latent pixels around, 26 of a frame's
    latents = torch.randn(1, 2, 3, 4, 160)
    whole, in_tiles = model.decode(latents)[0], tiled.decode(latents)[0]
    shared = slice(128, 192)
    for exact in (slice(0, 128), slice(155, 165), slice(192, 320)):
        torch.testing.assert_close(in_tiles[..., exact], whole[..., exact], **CLOSE)
    error = (in_tiles - whole)[..., shared].norm() / whole[..., shared].norm()
    assert 0 < error < 0.05


class LargestTensor(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numbers = max(self.numbers, out.numel())
        return out


def test_the_largest_tensor_is_smaller_in_tiles_and_does_not_grow_with_the_video():
    model = tiny_wan(width=16, multipliers=(1, 1, 1, 1))

    def largest(tokenizer, frames):
        with LargestTensor() as mode:
            tokenizer.encode(frames)
        return mode.numbers

    whole = largest(model, video(5, batch=1, height=64, width=64))
    assert largest(model, video(13, batch=1, height=64, width=64)) == whole
    assert largest(TiledTokenizer(model, tile=24, overlap=8), video(5, batch=1, height=64, width=64)) < whole / 4


def test_tiles_that_do_not_fit_are_refused():
    model = tiny_wan()
    with pytest.raises(ConfigError, match="tile must be a positive multiple of the spatial factor 8, got 20"):
        TiledTokenizer(model, tile=20, overlap=8)
    with pytest.raises(ConfigError, match="overlap must be a positive multiple"):
        TiledTokenizer(model, tile=24, overlap=0)
    with pytest.raises(ConfigError, match=r"third of the tile: got overlap=16, tile=40.* 8 or less"):
        TiledTokenizer(model, tile=40, overlap=16)
    tiled = TiledTokenizer(model, tile=24, overlap=8)
    _, state = tiled.encode(video(1, height=24, width=24))
    with pytest.raises(DataError, match="4 tiles, found"):
        tiled.encode(video(4, height=40, width=40), (*state, state[0]))
    with pytest.raises(DataError, match="44x40 do not divide"):
        tiled.encode(video(1, height=44, width=40))
