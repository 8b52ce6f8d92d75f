"""The examples of diskcache's own documentation, run on diskcache and on `Cache`: only the import line differs."""

import doctest

import pytest

pytest.importorskip("diskcache")

EXAMPLES = """
>>> cache.close()
>>> with Cache(cache.directory) as reference:
...     pass
>>> cache.set('key', 'value')
True
>>> cache.close()
>>> cache.get('key')
'value'
>>> cache['key'] = 'value'
>>> cache['key']
'value'
>>> 'key' in cache
True
>>> del cache['key']
>>> from io import BytesIO
>>> cache.set('key', BytesIO(b'value'), expire=5, read=True, tag='data')
True
>>> result = cache.get('key', read=True, expire_time=True, tag=True)
>>> reader, timestamp, tag = result
>>> print(reader.read().decode())
value
>>> reader.close()
>>> type(timestamp).__name__
'float'
>>> print(tag)
data
>>> cache.add(b'test', 123)
True
>>> cache[b'test']
123
>>> cache.add(b'test', 456)
False
>>> cache[b'test']
123
>>> cache.incr(b'test')
124
>>> cache.decr(b'test', 24)
100
>>> cache.incr('alice')
1
>>> cache.decr('bob', default=-9)
-10
>>> cache.incr('carol', default=None)
Traceback (most recent call last):
    ...
KeyError: 'carol'
>>> cache.pop('alice')
1
>>> cache.pop('dave', default='does not exist')
'does not exist'
>>> cache.set('dave', 0, expire=None, tag='admin')
True
>>> result = cache.pop('dave', expire_time=True, tag=True)
>>> value, timestamp, tag = result
>>> value
0
>>> print(timestamp)
None
>>> print(tag)
admin
>>> cache.clear()
3
>>> cache.reset('cull_limit', 0)
0
>>> for num in range(10):
...     _ = cache.set(num, num, expire=1e-9)
>>> import time
>>> cache.expire(now=time.time() + 1)
10
>>> for num in range(100):
...     _ = cache.set(num, num, tag='odd' if num % 2 else 'even')
>>> cache.evict('even')
50
>>> cache.clear()
50
>>> for num in range(100):
...     _ = cache.set(num, num, tag=(num % 2))
>>> cache.evict(0)
50
>>> cache.clear()
50
>>> cache.reset('size_limit', int(1e6))
1000000
>>> cache.reset('cull_limit', 0)
0
>>> for count in range(1000):
...     cache[count] = b'A' * 1000
>>> cache.volume() > int(1e6)
True
>>> cache.cull() > 0
True
>>> cache.volume() < int(1e6)
True
>>> cache.clear() > 0
True
>>> cache.volume() < int(1e5)
True
>>> cache.stats(enable=True)
(0, 0)
>>> for num in range(100):
...     _ = cache.set(num, num)
>>> for num in range(150):
...     _ = cache.get(num)
>>> hits, misses = cache.stats(enable=False, reset=True)
>>> (hits, misses)
(100, 50)
>>> warnings = cache.check()
>>> _ = cache.clear()
>>> for letter in 'abc':
...     cache[letter] = letter
>>> list(cache), list(reversed(cache))
(['a', 'b', 'c'], ['c', 'b', 'a'])
>>> cache.peekitem()
('c', 'c')
>>> cache.peekitem(last=False)
('a', 'a')
>>> _ = cache.clear()
>>> print(cache.push('first value'))
500000000000000
>>> cache.get(500000000000000)
'first value'
>>> print(cache.push('second value'))
500000000000001
>>> print(cache.push('third value', side='front'))
499999999999999
>>> cache.push(1234, prefix='userids')
'userids-500000000000000'
>>> cache.peek()
(499999999999999, 'third value')
>>> cache.pull()
(499999999999999, 'third value')
>>> cache.pull(side='back')
(500000000000001, 'second value')
>>> cache.pull(prefix='userids')
('userids-500000000000000', 1234)
>>> with cache.transact():
...     total = cache.incr('sum', 123.4)
...     count = cache.incr('count')
>>> (total, count)
(123.4, 1)
>>> @cache.memoize(typed=True, expire=1, tag='fib')
... def fibonacci(number):
...     if number == 0:
...         return 0
...     elif number == 1:
...         return 1
...     else:
...         return fibonacci(number - 1) + fibonacci(number - 2)
>>> print(fibonacci(30))
832040
>>> @cache.memoize
... def test():
...     pass
Traceback (most recent call last):
    ...
TypeError: name cannot be callable
>>> cache.close()
"""


@pytest.mark.parametrize("package", ["diskcache", "stateroom.adapters.cache"])
def test_the_examples_run(package, tmp_path):
    module = pytest.importorskip(package)
    names = {"__name__": __name__, "Cache": module.Cache, "cache": module.Cache(str(tmp_path / "cache"))}
    test = doctest.DocTestParser().get_doctest(EXAMPLES, names, package, None, 0)
    told = []
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    runner.run(test, out=told.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(told)
