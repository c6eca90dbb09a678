"""Makes the stubs of keyviz.v1: python3 make_stubs.py [FOLDER]; default: this folder."""

import pathlib
import sys

from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"


def make(folder):
    files = sorted(str(path) for path in (PROTO / "keyviz" / "v1").glob("*.proto"))
    arguments = ["protoc", f"-I{PROTO}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    return protoc.main(arguments + files)


if __name__ == "__main__":
    sys.exit(make(sys.argv[1] if len(sys.argv) > 1 else str(HERE)))
