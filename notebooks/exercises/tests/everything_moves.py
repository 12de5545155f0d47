from otter.test_files import test_case

OK_FORMAT = False

name = "everything_moves"
points = None

@test_case(points=None, hidden=False)
def test_everything_moves_tells_right_from_wrong(everything_moves, verdict, small):
    cut, frozen = (small(), small())
    cut.transformers[1].register_forward_hook(lambda _, inputs, out: out.detach())
    frozen.mix.requires_grad_(False)
    reasons = {'a module with its transformers in a plain list': 'a gradient reaches these, but no step: compare weights, not gradients, and those in `module.transformers` too', 'a module in which no gradient reaches the second transformer': 'that all are listed is not enough: train a step and look at each weight', 'a module with a frozen mix': "the transformers are not all: look at the module's own parameters too"}
    modules = {'the right module': small(), 'the right module in training mode': small().train()}
    modules |= dict(zip(reasons, (small(registered=False), cut, frozen), strict=True))
    said = {what: verdict(everything_moves, module) for what, module in modules.items()}
    assert set(said.values()) != {'passes'}, 'your test passes whatever it is given: write it in place of the three dots, with an assert. In all these modules some weights move; does it look at each?'
    assert set(said.values()) != {'fails'}, 'your test fails whatever it is given, the right module too. Did you keep copies of the weights? A step changes them in place. And can your loss change by each of them?'
    for what, word in said.items():
        assert word in ('passes', 'fails'), f'given {what}, your test {word}'
    for what in list(modules)[:2]:
        assert said[what] == 'passes', f'your test also fails on {what}'
    for what, reason in reasons.items():
        assert said[what] == 'fails', f'your test passes {what}: {reason}'

