# The commands of the project. Needs: python3 >= 3.11, make, a package index. Everything else is installed here.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAGE  ?= testing
EVENT  ?= events/scheduled.json
UV     := .venv-uv/bin/python requirements/uv.py
SAM    := SAM_CLI_TELEMETRY=0 .venv-sam/bin/sam
export PYTHONPATH := layers/storage_cleanup:.

# The AWS CLI reads both variables, and prefers the first; SAM and boto3 read the second alone.
ifneq ($(AWS_REGION),)
export AWS_DEFAULT_REGION := $(AWS_REGION)
endif

# Lambda's runtime, which `sam build` compiles the layers for: on PATH, or from pyenv.
PYTHON_313 := $(shell for python in "$$(command -v python3.13)" $$HOME/.pyenv/versions/3.13*/bin/python3.13; do \
	"$$python" -c '' 2>/dev/null && dirname "$$python" && break; done)

# cfn-lint looks into a state machine's definition only where it stands in the template.
ASL_TEMPLATE := {"Resources": {"Drain": {"Type": "AWS::StepFunctions::StateMachine", "Properties": \
	{"RoleArn": "arn:aws:iam::123456789012:role/drain", "Definition": %s}}}}

.DEFAULT_GOAL := help
.PHONY: database/install.sql install-database database-status help demo test test-fast mutants check check-code check-template format test-contract invoke prove bench report build package deploy test-events secrets parameters delete lock clean

help:                        ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

# ---------------------------------------------------------------------------------------------------- try and test

demo: $(VENV)/.ready         ## the whole system on the embedded stack, from nothing to a checked run
	@$(BIN)/python -m local.demo

invoke: $(VENV)/.ready       ## one event (EVENT=events/X.json) through the real handler
	@$(BIN)/python -m local.invoke $(EVENT)

test: $(VENV)/.ready .venv-sam/.ready ## every test, and the branches of the package that they cover
	@$(BIN)/python -m pytest -n 2 --dist loadfile --cov

test-fast: $(VENV)/.ready    ## the unit tests: seconds
	@$(BIN)/python -m pytest -n 2 tests/unit

mutants: $(VENV)/.ready      ## mutation testing of what decides alone; NAMES="*paths*" for some
	@$(BIN)/python -m tests.mutants $(NAMES)

test-contract: $(VENV)/.ready ## the recorded Storage contract against SUPABASE_URL, or the emulator when unset
	@$(BIN)/python -m pytest tests/contract

prove: $(VENV)/.ready        ## the long campaigns: races, kills, faults, fuzzing, a model
	@$(BIN)/python -m tests.campaigns

bench: $(VENV)/.ready        ## all performance figures, as ratios; NAMES="vs_ceiling workers" for some
	@$(BIN)/python -m benchmarks $(NAMES)

report: $(VENV)/.ready       ## a report of a cycle on the embedded stack, in build/report.html
	@$(BIN)/python -m local.report

# ---------------------------------------------------------------------------------------------------- check

check: check-code check-template ## formatting, linting, types, template

check-code: $(VENV)/.ready
	@$(BIN)/python requirements/lock.py --check
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/squawk database/install.sql database/uninstall.sql
	@$(BIN)/squawk --assume-in-transaction --exclude require-lock-timeout,require-statement-timeout,prefer-bigint-over-int database/migrations/*.sql
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy
	@for function in functions/*/app.py; do $(BIN)/mypy --no-error-summary $$function || exit 1; done

check-template: .venv-sam/.ready .venv-checkov/.ready
	@AWS_DEFAULT_REGION=eu-central-1 $(SAM) validate --lint
	@.venv-sam/bin/cfn-lint template.yaml
	@printf '$(ASL_TEMPLATE)' "$$(sed 's/$${Partition}/aws/' functions/backlog_drain.asl.json)" | .venv-sam/bin/cfn-lint
	@.venv-sam/bin/cfn-lint .github/deploy-role.yaml
	@.venv-sam/bin/python -W ignore tests/infrastructure/lint_policies.py
	@.venv-checkov/bin/checkov -f template.yaml .github/deploy-role.yaml --framework cloudformation --compact --quiet --skip-download

format: $(VENV)/.ready       ## rewrite the code as ruff wants it
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

database/install.sql: $(VENV)/.ready ## make the installation for the SQL editor from the files beside it
	@$(BIN)/python -m database.bundle

install-database: $(VENV)/.ready ## install what is missing in the database at ADMIN_DATABASE_URL, beside the application
	@$(BIN)/python -m database.install

database-status: $(VENV)/.ready ## what is installed in the database at ADMIN_DATABASE_URL, and what is missing
	@$(BIN)/python -m database.status

# ---------------------------------------------------------------------------------------------------- AWS

build: .venv-sam/.ready      ## build the functions and layers for Lambda
	@test -n "$(PYTHON_313)" || { echo "make build needs python3.13, on PATH or from pyenv" >&2; exit 1; }
	@PATH="$(PYTHON_313):$$PATH" $(SAM) build

package: build $(VENV)/.ready ## a zip with the built stack, and its checksum, that `sam deploy` takes without this repository
	@$(BIN)/python -m operations.package

region:
	@test -n "$$AWS_DEFAULT_REGION" || test -n "$$(aws configure get region 2>/dev/null)" || { \
		echo "There is no AWS region: set AWS_REGION to the region of the Supabase project" >&2; exit 1; }

deploy: region $(VENV)/.ready ## deploy STAGE (testing, production or another name)
	@$(BIN)/python -m operations.deploy check $(STAGE)
	@$(MAKE) --no-print-directory build
	@$(BIN)/python -m operations.deploy run $(STAGE) $(DEPLOY_FLAGS)

test-events: region $(VENV)/.ready .venv-sam/.ready ## put the samples of events/ beside the functions of STAGE, for the console's Test button
	@$(BIN)/python -m operations.share_events $(STAGE)

secrets: region $(VENV)/.ready ## ask for the secrets of STAGE and store them as SecureStrings
	@$(BIN)/python -m operations.put_secrets $(STAGE)

parameters: region $(VENV)/.ready ## create the parameters of STAGE that are missing, and list what differs from the defaults
	@$(BIN)/python -m operations.parameters $(STAGE)

delete: region .venv-sam/.ready ## delete the stack of STAGE
	@$(SAM) delete --stack-name storage-cleanup-$(STAGE)

# ---------------------------------------------------------------------------------------------------- install

lock: .venv-uv/.ready        ## lock the dependency groups of pyproject.toml again; LOCK_FLAGS=--upgrade for the newest
	@.venv-uv/bin/python requirements/lock.py $(LOCK_FLAGS)

clean:                       ## remove everything that was installed or built here
	rm -rf .venv .venv-* .stack .aws-sam build

$(VENV)/.ready: requirements/dev.txt | .venv-uv/.ready
	@echo "Installing into $(VENV) ..."
	@rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV)
	@$(UV) pip sync --quiet --require-hashes --python $(BIN)/python $<
	@$(BIN)/python -c 'import moto, psycopg, pytest'
	@touch $@

# pip installs uv, and uv everything else.
.venv-uv/.ready: requirements/uv.txt
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.venv-%/.ready: requirements/%.txt | .venv-uv/.ready
	@echo "Installing into $(@D) ..."
	@rm -rf $(@D) && $(PYTHON) -m venv --without-pip $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python $<
	@touch $@
