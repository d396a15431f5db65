"""``audit_cli.py`` whose worker Ray can start: it is imported from a module and not from the script."""

from __future__ import annotations

import audit_cli

from flawscope.audits import runner

runner.InspectWorker = audit_cli.PatchedWorker  # type: ignore[misc]

if __name__ == "__main__":
    audit_cli.main()
