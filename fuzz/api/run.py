"""Asks a gateway what its description allows and forbids: `./dev fuzz-api [examples for each operation] [options of
schemathesis run]`."""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
# Whether an operation takes all that its schema allows is not asked: no schema says what a recording is, which voices
# there are, or which token lives. Nor whether it refuses all that its schema forbids: an empty parameter counts as
# none, and a body is what its bytes say.
CHECKS = ",".join([
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
])

serving = ["cargo", "test", "--locked", "--quiet", "-p", "voxline-gateway", "--test", "it", "--"]
serving += ["--ignored", "--exact", "--nocapture", "conformance::fuzzing::gateway"]
gateway = subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
told = next((line.split()[1:] for line in gateway.stdout if line.startswith("serving ")), None)
if told is None:
    sys.exit("the gateway ended before it listened")
environment = os.environ | dict(zip(("FUZZ_URL", "FUZZ_TOKEN", "FUZZ_CLIENT", "FUZZ_SECRET"), told))
environment |= {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": HERE, "NO_PROXY": "*"}
examples = sys.argv[1] if len(sys.argv) > 1 else "300"
asking = [os.path.join(os.path.dirname(sys.executable), "schemathesis")]
asking += ["--config-file", os.path.join(HERE, "schemathesis.toml"), "run", told[0] + "/openapi.json"]
asking += ["--checks", CHECKS, "--max-examples", examples, "--seed", "1", "--continue-on-failure"]
asking += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "60", "--suppress-health-check", "all"]
asking += sys.argv[2:]
asked = subprocess.run(asking, env=environment, cwd=os.path.join(os.path.dirname(sys.executable), "../.."))
# It ends with its input.
gateway.stdin.close()
gateway.stdout.read()
sys.exit(asked.returncode or gateway.wait())
