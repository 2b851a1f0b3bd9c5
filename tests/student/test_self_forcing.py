import json
from dataclasses import replace

import pytest
import torch

from dreamdojo.dataset.windows import WindowSampler
from dreamdojo.errors import CheckpointError, ConfigError, TrainingDiverged
from dreamdojo.student.distill import StudentTraining, distil
from dreamdojo.student.health import moving_energy, spread, stop_if_lost
from dreamdojo.student.self_forcing import SelfForcing, StudentAndCritic, roll, self_force, self_forcing_step
from dreamdojo.training.checkpoint import load_model, read_about
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import FitConfig, TrainingState
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import CausalSampler, SamplerConfig, roll_out
from dreamdojo.world_model.train import WorldModelTraining
from tests.tiny import CPU, LATENT_DIM, latent_source, tiny_tokenizer, tiny_world_model

FIT = FitConfig(steps=4, batch_size=2, learning_rate=1e-3, warmup_steps=1, save_every=2, log_every=1)
SELF = SelfForcing(fit=FIT, shortest=3, longest=6, window=3, critic_steps=2)
STUDENT, TEACHER = SamplerConfig(steps=2), SamplerConfig(steps=4)
ALL = StudentTraining(
    fit=FIT,
    sampler=STUDENT,
    teacher=TEACHER,
    stages=("warm_up", "self_forcing", "long_rollout"),
    self_forcing=SELF,
    long_rollout=replace(SELF, shortest=7, longest=9, temporal_weight=0.5),
)
DATA = WorldModelTraining(fit=FIT, latent_frames=3)


def calm(**changes):
    """A tiny model whose rollouts do not grow."""
    model = tiny_world_model(**changes)
    with torch.no_grad():
        model.dit.patch_out.weight.mul_(0.1)
    return model


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rolled(model, settings, sampler=STUDENT, tokenizer=None, seed=0):
    truth, chunk = random(2, settings.longest, 4, 4, 4), random(2, settings.longest, LATENT_DIM, seed=1)
    causal = CausalSampler(model, sampler, model.config.dit.window)
    return roll(causal, settings, truth, chunk, torch.Generator().manual_seed(seed), tokenizer), truth, chunk


def draws(settings, sampler=STUDENT, seed=0):
    """Length, steps and noise as `roll` draws them."""
    generator = torch.Generator().manual_seed(seed)
    length = int(torch.randint(settings.shortest, settings.longest + 1, (), generator=generator))
    steps = int(torch.randint(1, sampler.steps + 1, (), generator=generator))
    return length, steps, torch.randn(2, length, 4, 4, 4, generator=generator)


@pytest.mark.parametrize("seed", range(3))
def test_the_window_is_the_end_of_an_ordinary_rollout_with_its_own_actions_and_the_real_frame_before(seed):
    model = tiny_world_model()
    end, truth, chunk = rolled(model, SELF, SamplerConfig(steps=1), seed=seed)
    length, _, noise = draws(SELF, SamplerConfig(steps=1), seed)
    causal = CausalSampler(model, SamplerConfig(steps=1), 3)
    whole = roll_out(causal, truth[:, :1], chunk[:, 1:length], noise[:, 1:])
    torch.testing.assert_close(end.made, whole[:, -3:])
    assert torch.equal(end.given, truth[:, length - 3]) and torch.equal(end.truth, truth[:, length - 3 : length])
    assert torch.equal(end.chunk, chunk[:, length - 3 : length])


def test_gradients_go_through_the_last_step_of_each_judged_frame_and_nothing_before():
    model, settings = tiny_world_model(), replace(SELF, shortest=6)
    end, truth, chunk = rolled(model, settings)
    assert not end.made[:, 0].requires_grad or end.made.grad_fn is not None
    _, steps, noise = draws(settings)
    end.made[:, -1].sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    causal = CausalSampler(model, STUDENT, 3)
    with torch.no_grad():
        state = causal.start(truth[:, 0])
        for index in range(1, 5):
            latent, own = causal.denoise(state, chunk[:, index], noise[:, index], steps=steps)
            state = causal.commit(state, chunk[:, index], latent, own)
    causal.denoise(state, chunk[:, 5], noise[:, 5], steps=steps)[0].sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad)


def test_under_autocast_the_passes_without_gradient_do_not_take_it_from_the_last_one():
    gradients = []
    for autocast in (False, True):
        model = tiny_world_model()
        with Compute(torch.device("cpu"), autocast, "tests").autocasting():
            end, _, _ = rolled(model, replace(SELF, shortest=6))
            loss = end.made[:, 1:].square().mean()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.dit.parameters() if p.grad is not None]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.parametrize("changes", [{}, {"reference_latent": True}])
def test_each_network_learns_in_its_turn_alone(changes):
    both, teacher = StudentAndCritic(calm(**changes), calm(**changes)), calm(dim=36, **changes)
    step = self_forcing_step(both, teacher, SELF, sampler=STUDENT, schedule=TEACHER, device=torch.device("cpu"))
    batch = WindowSampler([latent_source()], length=6, batch_size=2, seed=0)(0)
    for index in range(4):
        both.zero_grad()
        loss, _ = step(batch, TrainingState(index, torch.Generator().manual_seed(index), {}))
        loss.backward()
        learns = {
            name: any(p.grad is not None and p.grad.any() for p in net.parameters())
            for name, net in both.named_children()
        }
        assert learns == {"student": index in (0, 3), "critic": index in (1, 2)}
        assert SELF.turn(index).part == ("student" if learns["student"] else "critic")
        assert all(p.grad is None for p in teacher.parameters())


def test_with_the_last_step_writing_the_cache_context_takes_all_steps():
    model, last = tiny_world_model(), SamplerConfig(steps=3, commit="last_step")
    settings, seen = replace(SELF, shortest=6), []
    sampler = CausalSampler(model, last, 3)
    denoise = sampler.denoise

    def noted(*arguments, steps=None):
        seen.append(steps)
        return denoise(*arguments, steps=steps)

    sampler.denoise = noted
    generator = torch.Generator().manual_seed(0)
    roll(sampler, settings, random(2, 6, 4, 4, 4), random(2, 6, LATENT_DIM), generator, None)
    assert seen[:3] == [None] * 3 and seen[3] == seen[4] == draws(settings, last)[1]


def test_a_teacher_of_clips_is_given_a_picture_of_its_own_as_first_frame():
    tokenizer, settings = tiny_tokenizer(4), replace(SELF, shortest=6)
    model = tiny_world_model(4)
    truth, chunk = random(2, 6, 4, 4, 4), random(2, 6, 4 * LATENT_DIM)
    end = roll(CausalSampler(model, STUDENT, 3), settings, truth, chunk, torch.Generator().manual_seed(0), tokenizer)
    pictures, _ = tokenizer.decode(truth[:, :4])
    torch.testing.assert_close(end.given, tokenizer.encode(pictures[:, -1:])[0][:, 0])
    assert end.made[:, 1:].requires_grad and torch.equal(end.chunk, chunk[:, 3:])


def test_all_stages_meet_on_disk_and_stopping_in_any_changes_nothing(tmp_path):
    def run(folder, report=lambda *_: None):
        return distil(calm(), ALL, DATA, [latent_source(frames=12)], folder, compute=CPU, report=report)

    run(tmp_path / "whole")
    names = ["warm_up/model.safetensors", "self_forcing/model.safetensors", "model.safetensors"]
    whole = [(tmp_path / "whole" / name).read_bytes() for name in names]
    assert len(set(whole)) == 3

    stopped = []

    def stop(done, total, words):
        stage = words.split(",")[0]
        if done == 3 and stage not in stopped:
            stopped.append(stage)
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", stop)
    run(tmp_path / "parts", stop)
    assert stopped == ["warm up", "self forcing", "long rollout"]
    assert [(tmp_path / "parts" / name).read_bytes() for name in names] == whole
    assert read_about(tmp_path / "whole")["stages"] == list(ALL.stages)
    load_model(tmp_path / "whole", WorldModel)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    health = {"student_loss", "student_gradient_norm", "critic_loss", "critic_gradient_norm", "temporal"}
    assert health | {"spread", "sharpness", "motion"} <= rows[-1].keys()
    with pytest.raises(CheckpointError, match="warm_up=ode was asked for"):
        distil(calm(), replace(ALL, warm_up="ode"), DATA, [], tmp_path / "whole", compute=CPU)


def test_stages_that_are_asked_for_later_go_on_from_those_that_are_there(tmp_path):
    def run(name, stages, report=lambda *_: None):
        training = replace(ALL, stages=stages)
        return distil(calm(), training, DATA, [latent_source(frames=12)], tmp_path / name, compute=CPU, report=report)

    def stop(done, total, words):
        if done == 3:
            raise KeyboardInterrupt

    run("at once", ALL.stages[:2])
    run("later", ALL.stages[:1])
    with pytest.raises(KeyboardInterrupt):
        run("stopped", ALL.stages[:1], stop)
    for name in ("later", "stopped"):
        run(name, ALL.stages[:2])
        for model in ("warm_up/model.safetensors", "model.safetensors"):
            assert (tmp_path / name / model).read_bytes() == (tmp_path / "at once" / model).read_bytes(), (name, model)
    with pytest.raises(CheckpointError, match=r"stages=\['warm_up', 'self_forcing'\]; stages=\['warm_up'\] was asked"):
        run("later", ALL.stages[:1])


def test_the_published_warm_up_leads_a_teacher_of_clips_to_a_causal_student(tmp_path):
    teacher = tiny_world_model(
        causal=False, window=None, previous_latent=False, prediction="velocity", mask_channels=True
    )
    training = replace(
        ALL,
        warm_up="ode",
        stages=("warm_up", "self_forcing"),
        teacher=SamplerConfig(steps=4, solver="unipc"),
        sampler=SamplerConfig(steps=2, solver="renoise"),
    )
    data = WorldModelTraining(fit=FIT, latent_frames=4, scheme="first_frame")
    student = distil(
        teacher,
        training,
        data,
        [latent_source(frames=4)],
        tmp_path,
        compute=CPU,
        long_sources=[latent_source()],
        tokenizer=tiny_tokenizer(),
    )
    assert student.config.dit.causal and read_about(tmp_path)["warm_up"] == "ode"


def test_a_student_that_is_lost_stops_with_the_reason(tmp_path):
    student = tiny_world_model()
    with torch.no_grad():
        student.dit.patch_out.weight.mul_(1e3)
    with pytest.raises(TrainingDiverged, match=r"times the energy of real ones.*learning rate"):
        self_force(
            student,
            tiny_world_model(),
            SELF,
            [latent_source()],
            tmp_path,
            sampler=STUDENT,
            schedule=TEACHER,
            compute=CPU,
        )
    assert not (tmp_path / "model.safetensors").exists()
    stop_if_lost(random(1, 2, 4, 4, 4), random(1, 2, 4, 4, 4, seed=1), 0)


def test_health_is_one_for_the_teacher_itself_and_for_the_truth():
    teacher, truth = tiny_world_model(), random(2, 4, 4, 8, 8)
    pair = (teacher, TEACHER)
    ratio = spread(pair, pair, random(2, 4, 4, 4), random(2, 3, LATENT_DIM), torch.Generator().manual_seed(0))
    torch.testing.assert_close(ratio, torch.tensor(1.0))
    sharpness, motion = moving_energy(truth, truth)
    torch.testing.assert_close(torch.stack([sharpness, motion]), torch.ones(2))
    still = truth[:, :1].expand_as(truth)
    assert moving_energy(still, truth)[1] == 0
    assert moving_energy(truth.mean(dim=(3, 4), keepdim=True).expand_as(truth), truth)[0] < 1e-6


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="window <= shortest"):
        replace(SELF, window=4)
    with pytest.raises(ConfigError, match="begins with its warm_up"):
        replace(ALL, stages=("self_forcing",))
    with pytest.raises(ConfigError, match="in this order"):
        replace(ALL, stages=("warm_up", "long_rollout", "self_forcing"))
    with pytest.raises(ConfigError, match="has no settings"):
        replace(ALL, long_rollout=None)
