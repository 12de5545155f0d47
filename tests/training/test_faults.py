"""Nothing that a machine does to a training loses more than the step under way."""

import pytest
from tools.faults import every_fault, table


@pytest.mark.slow
def test_no_fault_changes_what_a_run_becomes(tmp_path):
    faults = every_fault(tmp_path)
    print(table(faults))
    assert faults[0].tried == 100
    for fault in faults:
        assert fault.resumed + fault.begun_again == fault.tried > 0, fault
        assert fault.resumed > fault.tried / 2, fault
        assert fault.different == 0, fault
