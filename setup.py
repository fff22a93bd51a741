import gzip
import os
import sysconfig
import tarfile
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

# The time of every file, so that the same sources give the same bytes. By default the first that zip knows.
EPOCH = int(os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800"))

# Free-threaded interpreters have no stable ABI before Python 3.15: there a build is for one version.
STABLE_ABI = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"py_limited_api": "cp311"}


def anonymous(member):
    member.mtime, member.uid, member.gid, member.uname, member.gname = EPOCH, 0, 0, "", ""
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    return member


class ReproducibleSdist(sdist):
    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        path = Path(f"{base_name}.tar.gz")
        with (
            path.open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=EPOCH) as stream,
            tarfile.open(mode="w", fileobj=stream) as archive,
        ):
            archive.add(base_dir, filter=anonymous)  # which goes through directories in order
        return str(path)


setup(
    cffi_modules=["dirtytrack/native/binding/build.py:ffibuilder"],
    cmdclass={"sdist": ReproducibleSdist},
    options={"bdist_wheel": STABLE_ABI},
)
