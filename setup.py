from setuptools import setup

setup(
    cffi_modules=["dirtytrack/native/build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
