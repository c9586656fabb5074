"""Drawn entries of dvc.lock."""

from hypothesis import strategies as st

# Short enough for a line: tests/unit/test_lockable.py has what DVC would fold.
words = st.text(st.sampled_from("abz019@-_./ :'#,{}\u00e4"), min_size=1, max_size=30).map(str.strip).filter(bool)
files = st.lists(st.fixed_dictionaries({"path": words, "hash": st.just("md5"), "md5": words, "size": st.integers(0)}))
stages = st.fixed_dictionaries(
    {"cmd": words}, optional={"deps": files, "params": st.dictionaries(words, st.dictionaries(words, words))}
)
