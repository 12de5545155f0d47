"""EUPS: its three sets of weights: what goes through them, what they share, how they are averaged."""

import pytest
import torch
from tools.batches import batch_of, images

from sbirlib.config import Config
from sbirlib.config.methods import EUPSConfig
from sbirlib.errors import ConfigError
from sbirlib.methods import EUPS, build
from sbirlib.methods.base import fingerprint
from sbirlib.methods.eups import grown
from sbirlib.training.setup import check_exactness


def made(backbone="sbir_mini", size=48, **options):
    torch.manual_seed(0)
    return EUPS(backbone, image_size=size, embed_dim=8, pool="mean", **options)


@pytest.mark.parametrize("share", [True, False])
def test_the_average_of_constant_weights_is_a_closed_form(share):
    model = made("test_resnet", 64, share_encoders=share, freeze=1, options=EUPSConfig(average=0.9))
    averaged = {name: value.clone() for name, value in model.sketch_encoder.state_dict().items()}
    with torch.no_grad():
        for value in (*model.sketch_learner.parameters(), *model.sketch_learner.buffers()):
            value += 1 if value.is_floating_point() else 3
    model.stage = "teacher"
    model.after_step()
    assert all(
        torch.equal(value, averaged[name]) for name, value in model.sketch_encoder.state_dict().items()
    )
    model.stage = "student"
    for _ in range(5):
        model.after_step()
    counts = 0
    for name, value in model.sketch_encoder.state_dict().items():
        if value.is_floating_point():
            expected = 0.9**5 * averaged[name] + (1 - 0.9**5) * (averaged[name] + 1)
            torch.testing.assert_close(value, expected, msg=name)
        else:
            counts += 1
            assert value == 3
    assert counts
    assert (fingerprint(model.photo_encoder) == fingerprint(model.sketch_encoder)) == share


@pytest.mark.parametrize("share", [True, False])
def test_copies_share_what_the_encoders_share_and_averages_are_not_trained(share):
    model = made(photo_edges=True, share_encoders=share, freeze=2)
    sketch, photo, taught = (
        model.sketch_learner.backbone,
        model.photo_learner.backbone,
        model.teacher.backbone,
    )
    assert (
        (sketch.encoder is photo.encoder)
        == (model.sketch_learner.distil is model.photo_learner.distil)
        == share
    )
    assert (sketch.edges, photo.edges, taught.edges) == (False, True, True)
    sets = [
        {value.data_ptr() for part in parts for value in part.parameters()}
        for parts in (
            (model.sketch_encoder, model.photo_encoder),
            (model.sketch_learner, model.photo_learner),
            (model.teacher,),
        )
    ]
    assert len(set().union(*sets)) == sum(map(len, sets))
    learning = {value.data_ptr() for value in model.parameters() if value.requires_grad}
    assert not learning & sets[0]
    assert learning & sets[1] < sets[1]  # what is frozen stays so
    assert learning & sets[2] < sets[2]


def test_a_teacher_that_has_learnt_stays_in_eval_mode():
    model = made(share_encoders=True)
    for stage, teaches in (("teacher", True), ("student", False), ("", False)):
        model.stage = stage
        assert model.train() is model
        assert {part.training for part in model.teacher.modules()} == {teaches}
        assert model.sketch_learner.training
    model.stage = "teacher"
    assert not model.eval().teacher.training


def test_several_processes_are_refused():
    config = Config.preset("mini").updated({"method": "eups"})
    with pytest.raises(ConfigError, match="method eups trains different weights in turn: use one process"):
        check_exactness(build(config), config, 2)
    check_exactness(build(config), config.updated({"optim.chunk": 4}), 1)


@pytest.mark.parametrize("extra", [False, True])
def test_rows_are_functions_of_single_pictures(extra):
    model = made().eval()
    batch = batch_of(images(4, 3, 3, 48, 48))
    if extra:
        batch = batch._replace(
            unlabelled=images(3, 3, 48, 48, seed=5), unlabelled_second=images(3, 3, 48, 48, seed=6)
        )
    second, more = (
        grown(view, 3, batch.numbers[:, 2])
        for view in (batch.photo_second, batch.unlabelled_second if extra else batch.photo_second)
    )
    photos = [batch.photo, batch.unlabelled] if extra else [batch.photo]
    sketches, learner, teacher = model.sketch_learner.both, model.photo_learner.both, model.teacher
    expected = {
        "sketch": [sketches(batch.sketch), sketches(batch.sketch_second)],
        "photo": [learner(second), *map(learner, photos)],
        "taught": [*map(teacher, photos)],
    }
    rows = model.encode(batch)
    assert rows.keys() == expected.keys()
    for name, views in expected.items():
        torch.testing.assert_close(rows[name], torch.stack(views, dim=1), atol=1e-5, rtol=0)
    assert not rows["taught"].requires_grad
    torch.testing.assert_close(learner(batch.photo)[:, 0], model.photo_learner(batch.photo))
    assert model.passes == pytest.approx(0.4 * (4 if extra else 2) + 0.6 * (7 if extra else 5))
    model.stage = "teacher"
    views = [*photos, second, more] if extra else [*photos, second]
    torch.testing.assert_close(
        model.encode(batch)["photo"], torch.stack([teacher(view) for view in views], 1), atol=1e-5, rtol=0
    )
