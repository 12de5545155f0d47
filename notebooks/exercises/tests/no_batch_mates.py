from otter.test_files import test_case

OK_FORMAT = False

name = "no_batch_mates"
points = None

@test_case(points=None, hidden=False)
def test_no_batch_mates_tells_right_from_wrong(no_batch_mates, verdict, small):

    def changed(change, module):
        module.register_forward_hook(lambda _, inputs, out: out._replace(fused=change(out.fused)))
        return module
    right = small()
    rounded = changed(lambda fused: fused * (1 + 1e-07 * len(fused)), small())
    centred = changed(lambda fused: fused - fused.mean(dim=0), small())
    faint = changed(lambda fused: fused - 0.01 * fused.mean(dim=0), small())
    modules = {'the right module': right, 'a right module that rounds': rounded, 'a module that subtracts the mean of the batch': centred, 'a module with w = 1 and attention over the batch': small(attention='batch', weight=1.0), 'a module with attention over the batch': small(attention='batch'), 'a module that subtracts a hundredth of the mean of the batch': faint}
    said = {what: verdict(no_batch_mates, module) for what, module in modules.items()}
    assert set(said.values()) != {'passes'}, 'your test passes whatever it is given: write it in place of the three dots, with an assert, and take batch-mates that differ from the image'
    assert set(said.values()) != {'fails'}, 'your test fails whatever it is given, the right module too. Does it compare the same image? And does it allow for rounding?'
    for what, word in said.items():
        assert word in ('passes', 'fails'), f'given {what}, your test {word}'
    first, second, *wrong = said
    assert said[first] == 'passes', 'your test also fails on the right module'
    assert said[second] == 'passes', 'your test also fails on a right module that differs in the seventh digit only: allow for rounding'
    for what in wrong[:2]:
        assert said[what] == 'fails', f'your test passes {what}. Does it compare what a bug changes?'
    for what in wrong[2:]:
        assert said[what] == 'fails', f'your test passes {what}: its tolerance is too wide'

