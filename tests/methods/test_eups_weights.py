"""EUPS: its three sets of weights: what they share, how they are averaged, what a teacher is kept from."""

import pytest
import torch

from sbirlib.config import Config
from sbirlib.config.methods import EUPSConfig
from sbirlib.errors import ConfigError
from sbirlib.methods import EUPS, build
from sbirlib.methods.base import fingerprint
from sbirlib.training.setup import check_exactness


def made(backbone="sbir_mini", size=48, **options):
    torch.manual_seed(0)
    return EUPS(backbone, image_size=size, embed_dim=8, pool="mean", **options)


@pytest.mark.parametrize("share", [True, False])
def test_the_average_of_constant_weights_is_a_closed_form(share):
    model = made("test_resnet", 64, share_encoders=share, freeze=1, eups=EUPSConfig(average=0.9))
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
