from otter.test_files import test_case

OK_FORMAT = False

name = "ppo_loss"
points = None

@test_case(points=None, hidden=False)
def test_ppo_loss_equals_the_plain_loop(ppo_loss, torch, math):
    new = torch.tensor([-1.0, -2.0, -0.5, -1.5, -0.7, -0.2])
    old = torch.tensor([-1.5, -1.4, -0.6, -1.4, -1.9, -1.0])
    gain = torch.tensor([1.0, -1.0, 2.0, -0.5, -1.5, 0.3])
    found = ppo_loss(new, old, gain, clip=0.2)
    assert found is not None, 'ppo_loss gives nothing back: write it in place of the three dots'
    assert found.shape == (), f'a loss is one number, and yours has the shape {tuple(found.shape)}'

    def slow(pick=min, turned=False, clip=0.2):
        terms = []
        for n, o, a in zip(new.tolist(), old.tolist(), gain.tolist(), strict=True):
            ratio = math.exp(o - n if turned else n - o)
            clipped = min(max(ratio, 1 - clip), 1 + clip)
            terms.append(pick(ratio * a, clipped * a))
        return -sum(terms) / len(terms)
    right, found = (slow(), found.item())
    mistakes = [(-right, 'the sign: an optimiser minimises, and the advantage should grow'), (6 * right, 'your loss is a sum, not a mean'), (slow(pick=max), 'the smaller of the two counts, not the larger: PPO is pessimistic'), (slow(turned=True), 'your ratio is upside down: new over old'), (slow(clip=9.0), 'nothing is clipped'), (slow(pick=lambda free, clipped: max(free, clipped) if free < 0 else min(free, clipped)), 'multiply both by the advantage before you take the minimum: below 0 the order turns round'), (slow(pick=lambda free, clipped: clipped), 'the clipped term alone: take the minimum of both')]
    for wrong, reason in mistakes:
        assert abs(found - wrong) > 0.0001, reason
    assert abs(found - right) < 0.0001, f'for these six actions the loss is {right:.4f}, yours is {found:.4f}'

@test_case(points=None, hidden=False)
def test_ppo_loss_stops_where_it_went_far_enough(ppo_loss, torch):
    new = torch.log(torch.tensor([1.5, 1.1])).requires_grad_()
    loss = ppo_loss(new, torch.zeros(2), torch.ones(2), clip=0.2)
    assert loss is not None, 'ppo_loss gives nothing back: write it in place of the three dots'
    loss.backward()
    assert new.grad[0] == 0, 'an action that is 1.5 times as likely already should have no gradient, and has one'
    assert new.grad[1] < 0, 'a good action that is only 1.1 times as likely should become likelier'

