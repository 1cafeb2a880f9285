"""`python -m leap`: the command `leap` where its script is not on the path."""

import os
import sys

from leap.cli.main import main

if __name__ == "__main__":
    code = main()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # Threads of torch.distributed now and then abort a process that torchrun started while the interpreter is taken
        # down, after all was written and said; torchrun would call that a failure of the whole job.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
    sys.exit(code)
