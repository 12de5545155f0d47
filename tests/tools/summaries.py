"""What the summary of an ablation says, line by line."""


def shown(text, name):
    """The words of a variant's row in the table."""
    [row] = [line for line in text.partition("\nin percent")[0].splitlines() if line.startswith(f"{name}  ")]
    return row.removeprefix(name).split()
