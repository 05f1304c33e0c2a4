def last_word(text: str) -> str:
    """Return the last word of a sentence."""
    words = text.split()
    return words[-1]


def count_positive(numbers: list) -> int:
    """Count the numbers greater than zero."""
    total = 0
    for number in numbers:
        if number > 0:
            total += 1
    return total


