from otter.test_files import test_case

OK_FORMAT = False

name = "best_epoch"
points = None

@test_case(points=None, hidden=False)
def test_best_epoch(best_epoch, pd):
    rows = {'epoch': [1, 2, 3, 4, 5, 6], 'loss_total': [9.0, 5.0, 4.0, 3.0, 2.0, 1.0], 'val_acc@1': [20.0, 50.0, 50.0, 50.0, 40.0, 30.0], 'val_mrr': [0.3, 0.6, 0.7, 0.7, 0.9, 0.4]}
    found = best_epoch(pd.DataFrame(rows))
    assert found is not None, 'best_epoch gives nothing back: write it in place of the three dots'
    reasons = {1: 'that is the first epoch, the worst one here', 2: 'that is the first of three epochs with 50 %: among these val_mrr decides', 3: 'that is the row counted from 0, or the first of two that are equally good: take the later one', 5: 'that is the best val_mrr: Acc@1 comes first', 6: 'that is the lowest loss, or the last epoch: the search on held-out photos decides'}
    assert found == 4, reasons.get(found, f'{found} is no epoch of these; the best is epoch 4')
    later = pd.DataFrame(rows).assign(epoch=[11, 12, 13, 14, 15, 16])
    assert best_epoch(later) == 14, 'your result is a row and not an epoch: read it from the column'

