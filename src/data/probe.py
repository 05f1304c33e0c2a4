

def _codelora_differs(task, function):
    """Whether this program's `function` fails more than one in five of the benchmark task's tests: a prime test that errs
    at zero is still a prime test. Runs beside the program, not beside the tests: the answer guards the data against
    repetition, it proves nothing."""
    import sys

    class Enough(BaseException):
        pass

    left = [200000]

    def count(frame, event, argument):
        left[0] -= 1
        if left[0] < 0:
            raise Enough
        return count

    name, setup, tests = _CODELORA_TASKS[task]
    space, faults = {}, 0
    for number, test in enumerate([setup] + tests):
        left[0] = 200000
        try:
            if number == 1:
                space[name] = globals()[function]
            sys.settrace(count)
            exec(test, space)
        except BaseException:
            faults += 1
        finally:
            sys.settrace(None)
        if 5 * faults > len(tests):
            return True
    return False
