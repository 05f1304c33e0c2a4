"""Bodies for the benchmark tasks: `right` ones are written differently and must pass, `wrong` ones are plausible and must fail."""

MUTANTS = {
    "add": {
        "right": [
            "return sum((a, b))",
            "return b - (-a)",
        ],
        "wrong": [
            "return a * b",
            "return a - b",
            "return a + b + 1",
            "return a + a",
            "return max(a, b)",
            "return a | b",
            "return abs(a) + abs(b)",
        ],
    },
    "multiply": {
        "right": [
            "return b * a",
            (
                "sign = -1 if (a < 0) != (b < 0) else 1\n"
                "a, b, total = abs(a), abs(b), 0\n"
                "while b:\n"
                "    if b & 1:\n"
                "        total += a\n"
                "    a, b = a << 1, b >> 1\n"
                "return sign * total\n"
            ),
        ],
        "wrong": [
            "return a + b",
            "return a ** b",
            "return a * b * b",
            "return a * a",
            "return a / b",
            "return sum(a for _ in range(b))",
            "return abs(a * b)",
        ],
    },
    "max_value": {
        "right": [
            "return max(a, b)",
            "return sorted([a, b])[1]",
        ],
        "wrong": [
            "return min(a, b)",
            "return a",
            "return b",
            "return a + b",
            "return max(abs(a), abs(b))",
            "return a > b",
            "return max(a, b, 0)",
        ],
    },
    "abs_value": {
        "right": [
            "return abs(number)",
            "return max(number, -number)",
        ],
        "wrong": [
            "return number",
            "return -number",
            "return number ** 2",
            "return max(number, 0)",
            "return number > 0",
            "return ~number if number < 0 else number",
        ],
    },
    "is_even": {
        "right": [
            "return not number & 1",
            "return number // 2 * 2 == number",
        ],
        "wrong": [
            "return number % 2 != 0",
            "return number % 2",
            "return number > 0",
            "return number % 4 == 0",
            "return number % 2 == 0 and number > 0",
            "return number % 2 == 0 if number >= 0 else True",
            "return True",
        ],
    },
    "is_prime": {
        "right": [
            "return number > 1 and all(number % d for d in range(2, number))",
            (
                "if number in (2, 3):\n"
                "    return True\n"
                "if number < 2 or number % 2 == 0 or number % 3 == 0:\n"
                "    return False\n"
                "d = 5\n"
                "while d * d <= number:\n"
                "    if number % d == 0 or number % (d + 2) == 0:\n"
                "        return False\n"
                "    d += 6\n"
                "return True\n"
            ),
        ],
        "wrong": [
            "return all(number % d for d in range(2, number))",
            "return number % 2 != 0",
            "return number > 1 and all(number % d for d in range(2, int(number**0.5)))",
            "return number > 1 and (number == 2 or number % 2 == 1)",
            "return number > 1 and all(number % p or number == p for p in (2, 3, 5, 7))",
            (
                "if number < 2:\n"
                "    return False\n"
                "for d in range(2, number):\n"
                "    if number % d == 0:\n"
                "        return False\n"
                "    return True\n"
            ),
            "return number % 2 == 0",
        ],
    },
    "factorial": {
        "right": [
            "return 1 if n < 2 else n * factorial(n - 1)",
            (
                "import math\n"
                "return math.prod(range(1, n + 1))\n"
            ),
        ],
        "wrong": [
            "return sum(range(1, n + 1))",
            "return n * (n - 1)",
            "return n ** 2",
            (
                "result = 1\n"
                "for i in range(1, n):\n"
                "    result *= i\n"
                "return result\n"
            ),
            (
                "result = 0\n"
                "for i in range(1, n + 1):\n"
                "    result *= i\n"
                "return result\n"
            ),
            "return n * factorial(n - 1) if n > 0 else 0",
            "return n * factorial(n - 2) if n > 1 else 1",
        ],
    },
    "fibonacci": {
        "right": [
            (
                "sequence = [0, 1]\n"
                "while len(sequence) <= n:\n"
                "    sequence.append(sequence[-1] + sequence[-2])\n"
                "return sequence[n]\n"
            ),
            (
                "def pair(k):\n"
                "    if k == 0:\n"
                "        return 0, 1\n"
                "    x, y = pair(k // 2)\n"
                "    low, high = x * (2 * y - x), x * x + y * y\n"
                "    return (high, low + high) if k % 2 else (low, high)\n"
                "return pair(n)[0]\n"
            ),
        ],
        "wrong": [
            (
                "a, b, c = 0, 1, 1\n"
                "for _ in range(n):\n"
                "    a, b, c = b, c, a + b + c\n"
                "return a\n"
            ),
            (
                "a, b = 1, 1\n"
                "for _ in range(n):\n"
                "    a, b = b, a + b\n"
                "return a\n"
            ),
            (
                "a, b = 0, 1\n"
                "for _ in range(n):\n"
                "    a, b = b, a + b\n"
                "return b\n"
            ),
            (
                "a, b = 2, 1\n"
                "for _ in range(n):\n"
                "    a, b = b, a + b\n"
                "return a\n"
            ),
            "return n if n < 2 else 2 * (n - 1)",
            (
                "result = 1\n"
                "for i in range(1, n + 1):\n"
                "    result *= i\n"
                "return result\n"
            ),
            "return n * (n + 1) // 2",
        ],
    },
    "sum_list": {
        "right": [
            "return sum(numbers)",
            "return numbers[0] + sum_list(numbers[1:]) if numbers else 0",
        ],
        "wrong": [
            "return sum(n * n for n in numbers)",
            "return len(numbers)",
            "return sum(set(numbers))",
            "return sum(abs(n) for n in numbers)",
            "return max(numbers)",
            "return sum(numbers[1:])",
            "return sum(numbers[:-1])",
            "return sum(n for n in numbers if n > 0)",
            "return sum(numbers) / len(numbers)",
        ],
    },
    "reverse_list": {
        "right": [
            "return list(reversed(items))",
            (
                "result = []\n"
                "for item in items:\n"
                "    result.insert(0, item)\n"
                "return result\n"
            ),
        ],
        "wrong": [
            "return items",
            "return sorted(items, reverse=True)",
            "return reversed(items)",
            "items.reverse()",
            "return items[::-2]",
            "return items[-1:0:-1]",
            "return [items[-1]] + items[1:-1] + [items[0]]",
            "return [item[::-1] for item in items]",
        ],
    },
    "find_max": {
        "right": [
            "return max(numbers)",
            "return sorted(numbers)[-1]",
        ],
        "wrong": [
            "return min(numbers)",
            "return numbers[-1]",
            "return numbers[0]",
            (
                "largest = 0\n"
                "for number in numbers:\n"
                "    if number > largest:\n"
                "        largest = number\n"
                "return largest\n"
            ),
            "return max(numbers, key=abs)",
            "return len(numbers)",
            "return sorted(set(numbers))[-2]",
            "return numbers.index(max(numbers))",
            "return sum(numbers)",
        ],
    },
    "count_vowels": {
        "right": [
            "return len([c for c in text if c in \"aeiouAEIOU\"])",
            "return sum(text.upper().count(v) for v in \"AEIOU\")",
        ],
        "wrong": [
            "return sum(1 for c in text if c in \"aeiou\")",
            "return sum(1 for c in text.lower() if c not in \"aeiou\")",
            "return len(set(text.lower()) & set(\"aeiou\"))",
            "return sum(1 for c in text.lower() if c in \"aeiouy\")",
            "return [c for c in text.lower() if c in \"aeiou\"]",
            "return sum(1 for c in text.lower() if c in \"aeio\")",
            "return sum(1 for c in text if c.isalpha() and c not in \"aeiouAEIOU\")",
            "return len(text)",
        ],
    },
    "remove_duplicates": {
        "right": [
            "return list(dict.fromkeys(items))",
            "return [item for i, item in enumerate(items) if item not in items[:i]]",
        ],
        "wrong": [
            "return sorted(set(items))",
            "return list(set(items))",
            "return [item for item in items if items.count(item) == 1]",
            "return [item for i, item in enumerate(items) if item not in items[i + 1:]]",
            "return items",
            "return set(items)",
            "return [item for i, item in enumerate(items) if i == 0 or item != items[i - 1]]",
            "return [item for item in items if items.count(item) > 1]",
        ],
    },
    "is_palindrome": {
        "right": [
            "return all(text[i] == text[-1 - i] for i in range(len(text) // 2))",
            "return list(text) == list(reversed(text))",
        ],
        "wrong": [
            "return text[0] == text[-1]",
            "return text == text[::-1] and len(text) % 2 == 1",
            "return text == text",
            "return text[:1] == text[-1:]",
            "return len(text) > 1 and text == text[::-1]",
            "return sorted(text) == sorted(text[::-1])",
            "return text != text[::-1]",
            "return text[::-1]",
            "return text == ''.join(sorted(text))",
        ],
    },
    "gcd": {
        "right": [
            "return a if b == 0 else gcd(b, a % b)",
            (
                "if a == 0 or b == 0:\n"
                "    return a + b\n"
                "while a != b:\n"
                "    a, b = (a - b, b) if a > b else (a, b - a)\n"
                "return a\n"
            ),
        ],
        "wrong": [
            "return a * b",
            "return a % b",
            "return min(a, b)",
            (
                "x, y = a, b\n"
                "while y:\n"
                "    x, y = y, x % y\n"
                "return a * b // x\n"
            ),
            (
                "for d in range(2, min(a, b) + 1):\n"
                "    if a % d == 0 and b % d == 0:\n"
                "        return d\n"
                "return 1\n"
            ),
            (
                "while b:\n"
                "    a, b = b, a % b\n"
                "return b\n"
            ),
            (
                "for d in range(min(a, b), 0, -1):\n"
                "    if a % d == 0 and b % d == 0:\n"
                "        return d\n"
            ),
        ],
    },
    "linear_search": {
        "right": [
            "return items.index(target) if target in items else -1",
            "return next((i for i, item in enumerate(items) if item == target), -1)",
        ],
        "wrong": [
            "return target in items",
            "return items.index(target)",
            (
                "for i in range(len(items)):\n"
                "    if items[i] == target:\n"
                "        return i + 1\n"
                "return -1\n"
            ),
            (
                "found = -1\n"
                "for i, item in enumerate(items):\n"
                "    if item == target:\n"
                "        found = i\n"
                "return found\n"
            ),
            (
                "for i, item in enumerate(items):\n"
                "    if item == target:\n"
                "        return i\n"
                "    return -1\n"
            ),
            (
                "for item in items:\n"
                "    if item == target:\n"
                "        return item\n"
                "return -1\n"
            ),
            "return items.count(target)",
            (
                "for i, item in enumerate(items):\n"
                "    if item == target:\n"
                "        return i\n"
                "return None\n"
            ),
        ],
    },
    "bubble_sort": {
        "right": [
            "return sorted(numbers)",
            (
                "swapped = True\n"
                "while swapped:\n"
                "    swapped = False\n"
                "    for i in range(1, len(numbers)):\n"
                "        if numbers[i - 1] > numbers[i]:\n"
                "            numbers[i - 1], numbers[i] = numbers[i], numbers[i - 1]\n"
                "            swapped = True\n"
                "return numbers\n"
            ),
        ],
        "wrong": [
            "return sorted(numbers, reverse=True)",
            "return sorted(set(numbers))",
            (
                "for i in range(len(numbers) - 1):\n"
                "    if numbers[i] > numbers[i + 1]:\n"
                "        numbers[i], numbers[i + 1] = numbers[i + 1], numbers[i]\n"
                "return numbers\n"
            ),
            "return sorted(numbers, key=str)",
            "return numbers[::-1]",
            "return sorted(numbers, key=abs)",
            "numbers.sort()",
            "return numbers",
        ],
    },
    "flatten_list": {
        "right": [
            "return sum(nested, [])",
            (
                "result = []\n"
                "for inner in nested:\n"
                "    result.extend(inner)\n"
                "return result\n"
            ),
        ],
        "wrong": [
            "return nested",
            "return nested[0]",
            (
                "result = []\n"
                "for inner in nested:\n"
                "    result.append(inner)\n"
                "return result\n"
            ),
            "return sorted(item for inner in nested for item in inner)",
            "return list(dict.fromkeys(item for inner in nested for item in inner))",
            "return [inner[0] for inner in nested]",
            "return [sum(inner) for inner in nested]",
            "return [item for item in nested]",
        ],
    },
    "string_reverse": {
        "right": [
            "return \"\".join(reversed(text))",
            (
                "result = \"\"\n"
                "for letter in text:\n"
                "    result = letter + result\n"
                "return result\n"
            ),
        ],
        "wrong": [
            "return text",
            "return list(reversed(text))",
            "return \" \".join(text.split()[::-1])",
            "return \"\".join(sorted(text, reverse=True))",
            "return text[::-1].lower()",
            "return \" \".join(word[::-1] for word in text.split())",
            "return text * 2",
            "return text.swapcase()",
            "return text[-1:0:-1]",
        ],
    },
    "power": {
        "right": [
            "return base ** exponent",
            "return 1 if exponent == 0 else base * power(base, exponent - 1)",
        ],
        "wrong": [
            "return base * exponent",
            "return exponent ** base",
            "return base ** 2",
            (
                "result = 1\n"
                "for _ in range(exponent - 1):\n"
                "    result *= base\n"
                "return result\n"
            ),
            (
                "result = base\n"
                "for _ in range(exponent):\n"
                "    result *= base\n"
                "return result\n"
            ),
            "return base ^ exponent",
            (
                "import math\n"
                "return int(math.pow(base, exponent))\n"
            ),
            "return base + exponent",
        ],
    },
    "count_even": {
        "right": [
        ],
        "wrong": [
            "return sum(1 for n in numbers if n % 2)",
            "return [n for n in numbers if n % 2 == 0]",
            "return sum(n for n in numbers if n % 2 == 0)",
            "return sum(1 for n in numbers if n > 0 and n % 2 == 0)",
        ],
    },
    "clamp": {
        "right": [
        ],
        "wrong": [
            "return min(value, high)",
            "return max(value, low)",
            "return low <= value <= high",
            "return min(low, max(value, high))",
        ],
    },
    "last_element": {
        "right": [
        ],
        "wrong": [
            "return items[0] if items else None",
            "return items[-1]",
            "return items[-1:]",
            "return max(items) if items else None",
        ],
    },
    "sum_of_squares": {
        "right": [
        ],
        "wrong": [
            "return sum(numbers)",
            "return sum(numbers) ** 2",
            "return [n * n for n in numbers]",
            "return sum(2 * n for n in numbers)",
        ],
    },
    "count_words": {
        "right": [
        ],
        "wrong": [
            "return len(text)",
            "return text.count(\" \") + 1",
            "return len(text.split(\" \"))",
            "return len(set(text.split()))",
        ],
    },
    "merge_dicts": {
        "right": [
        ],
        "wrong": [
            "return {**second, **first}",
            "return first.update(second)",
            "return {k: v for k, v in first.items() if k in second}",
            "return first",
        ],
    },
    "second_largest": {
        "right": [
        ],
        "wrong": [
            "return sorted(numbers)[-2]",
            "return max(numbers)",
            "return sorted(set(numbers))[1]",
            "return sorted(set(numbers), reverse=True)[2]",
        ],
    },
    "is_vowel": {
        "right": [
        ],
        "wrong": [
            "return letter in \"aeiou\"",
            "return letter.lower() not in \"aeiou\"",
            "return letter.lower() in \"aeiouy\"",
            "return letter.isalpha()",
        ],
    },
    "to_celsius": {
        "right": [
        ],
        "wrong": [
            "return fahrenheit * 9 / 5 + 32",
            "return fahrenheit - 32 * 5 / 9",
            "return (fahrenheit - 32) * 9 / 5",
            "return (fahrenheit - 32) // 1.8",
        ],
    },
    "capitalize_words": {
        "right": [
        ],
        "wrong": [
            "return text.upper()",
            "return text.capitalize()",
            "return text.title()",
            "return [word.capitalize() for word in text.split()]",
        ],
    },
    "min_value": {
        "right": [
        ],
        "wrong": [
            "return max(a, b)",
            "return a",
            "return b",
            "return min(abs(a), abs(b))",
        ],
    },
    "is_odd": {
        "right": [
        ],
        "wrong": [
            "return number % 2 == 0",
            "return number % 2",
            "return number % 3 == 1",
            "return number > 0",
        ],
    },
    "product_list": {
        "right": [
        ],
        "wrong": [
            "return sum(numbers)",
            (
                "product = 0\n"
                "for number in numbers:\n"
                "    product *= number\n"
                "return product\n"
            ),
            (
                "product = 1\n"
                "for number in numbers:\n"
                "    product *= number\n"
                "    return product\n"
            ),
        ],
    },
    "average": {
        "right": [
        ],
        "wrong": [
            "return sum(numbers) // len(numbers)",
            "return sum(numbers)",
            "return sorted(numbers)[len(numbers) // 2]",
            "return (min(numbers) + max(numbers)) / 2",
        ],
    },
    "count_occurrences": {
        "right": [
        ],
        "wrong": [
            "return len(items)",
            "return target in items",
            "return items.index(target)",
            "return sum(1 for item in items if item != target)",
        ],
    },
    "is_leap_year": {
        "right": [
        ],
        "wrong": [
            "return year % 4 == 0",
            "return year % 4 == 0 and year % 100 != 0",
            "return year % 400 == 0",
            "return year % 2 == 0",
        ],
    },
    "sum_digits": {
        "right": [
        ],
        "wrong": [
            "return len(str(n))",
            "return n % 10",
            "return n % 9",
            "return sum(range(n + 1))",
        ],
    },
    "double_all": {
        "right": [
        ],
        "wrong": [
            "return numbers * 2",
            "return [n ** 2 for n in numbers]",
            "return [n + 2 for n in numbers]",
            "return sum(2 * n for n in numbers)",
        ],
    },
    "filter_positive": {
        "right": [
        ],
        "wrong": [
            "return [n for n in numbers if n >= 0]",
            "return [n for n in numbers if n < 0]",
            "return [abs(n) for n in numbers]",
            "return sum(1 for n in numbers if n > 0)",
        ],
    },
    "first_n": {
        "right": [
        ],
        "wrong": [
            "return items[n:]",
            "return items[-n:]",
            "return items[n]",
            "return items[:n + 1]",
        ],
    },
    "contains": {
        "right": [
        ],
        "wrong": [
            "return target not in items",
            "return items.count(target)",
            "return items[0] == target",
            "return True",
        ],
    },
    "longest_word": {
        "right": [
        ],
        "wrong": [
            "return min(words, key=len)",
            "return max(words)",
            "return max(len(word) for word in words)",
            "return sorted(words, key=len)[-1]",
        ],
    },
    "remove_spaces": {
        "right": [
        ],
        "wrong": [
            "return text.strip()",
            "return \"\".join(text.split())",
            "return text.replace(\" \", \"\", 1)",
            "return text.split(\" \")",
        ],
    },
    "count_uppercase": {
        "right": [
        ],
        "wrong": [
            "return sum(1 for c in text if c.islower())",
            "return len([w for w in text.split() if w[0].isupper()])",
            "return \"\".join(c for c in text if c.isupper())",
            "return sum(1 for c in set(text) if c.isupper())",
        ],
    },
    "invert_dict": {
        "right": [
        ],
        "wrong": [
            "return mapping",
            "return {key: value for key, value in mapping.items()}",
            "return list(mapping.values())",
            "return dict(reversed(list(mapping.items())))",
        ],
    },
    "range_sum": {
        "right": [
        ],
        "wrong": [
            "return sum(range(start, end))",
            "return start + end",
            "return end * (end + 1) // 2",
            "return sum(range(start + 1, end + 1))",
        ],
    },
    "triangle_area": {
        "right": [
        ],
        "wrong": [
            "return base * height",
            "return base * height // 2",
            "return (base + height) / 2",
            "return 2 * (base + height)",
        ],
    },
    "rectangle_perimeter": {
        "right": [
        ],
        "wrong": [
            "return width * height",
            "return width + height",
            "return 2 * width + height",
            "return 4 * width",
        ],
    },
    "is_sorted": {
        "right": [
        ],
        "wrong": [
            "return all(a < b for a, b in zip(numbers, numbers[1:]))",
            "return all(a >= b for a, b in zip(numbers, numbers[1:]))",
            "return sorted(numbers)",
            "return numbers[0] <= numbers[-1]",
        ],
    },
    "count_characters": {
        "right": [
        ],
        "wrong": [
            "return len(text)",
            "return {c: 1 for c in text}",
            "return {c: text.count(c) for c in text.lower()}",
            "return {c: text.count(c) for c in text if c.isalpha()}",
        ],
    },
    "common_elements": {
        "right": [
        ],
        "wrong": [
            "return [x for x in first if x not in second]",
            "return list(set(first) & set(second))",
            "return [x for x in second if x in first]",
            "return first + second",
        ],
    },
    "even_numbers": {
        "right": [
        ],
        "wrong": [
            "return list(range(0, limit, 2))",
            "return list(range(1, limit + 1, 2))",
            "return list(range(2, limit + 1, 2))",
            "return range(0, limit + 1, 2)",
        ],
    },
    "value_range": {
        "right": [
        ],
        "wrong": [
            "return max(numbers)",
            "return min(numbers) - max(numbers)",
            "return max(numbers) + min(numbers)",
            "return numbers[-1] - numbers[0]",
        ],
    },
    "join_words": {
        "right": [
        ],
        "wrong": [
            "return \"\".join(words)",
            "return \", \".join(words)",
            "return \" \".join(words[::-1])",
            "return \" \".join(words) + \" \"",
        ],
    },
    "index_of_min": {
        "right": [
        ],
        "wrong": [
            "return min(numbers)",
            "return numbers.index(max(numbers))",
            "return len(numbers) - 1 - numbers[::-1].index(min(numbers))",
            "return numbers.index(min(numbers)) + 1",
        ],
    },
    "remove_all": {
        "right": [
        ],
        "wrong": [
            (
                "items.remove(target)\n"
                "return items\n"
            ),
            "return [x for x in items if x == target]",
            "return sorted(x for x in items if x != target)",
            "return list(dict.fromkeys(x for x in items if x != target))",
        ],
    },
    "is_divisible": {
        "right": [
        ],
        "wrong": [
            "return number % divisor",
            "return number % divisor != 0",
            "return divisor % number == 0",
            "return number / divisor",
        ],
    },
    "sign": {
        "right": [
        ],
        "wrong": [
            "return abs(number)",
            "return 1 if number >= 0 else -1",
            "return number > 0",
            "return -number",
        ],
    },
    "count_down": {
        "right": [
        ],
        "wrong": [
            "return list(range(1, n + 1))",
            "return list(range(n, -1, -1))",
            "return list(range(n, 1, -1))",
            "return range(n, 0, -1)",
        ],
    },
    "chunk_list": {
        "right": [
        ],
        "wrong": [
            "return [items[:size], items[size:]]",
            "return [items[i::size] for i in range(size)]",
            "return [items[i:i + size] for i in range(len(items))]",
            "return items[:size]",
        ],
    },
}
