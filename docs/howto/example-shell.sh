#!/bin/sh
# The lab from a shell: start it, break it, let a migration run, and ask what really happened. Needs curl.
set -eu
export CUCM_LAB_DIRECTORY="$(mktemp -d)/lab"
ready="$CUCM_LAB_DIRECTORY.json"
cucm-lab up --detach --network auto --ready-file "$ready" >/dev/null
trap 'cucm-lab down >/dev/null; rm -r "$(dirname "$CUCM_LAB_DIRECTORY")"' EXIT

api="$(sed -n 's/.*"api": "\([^"]*\)".*/\1/p' "$ready")/v1"
post() { curl --silent --show-error --fail-with-body -X POST -H 'Content-Type: application/json' -d "$2" "$api/$1"; }
phone=SEPB000B4BA0AEE

# what your tool would do: the new cluster's signers into the old cluster's stores, TVS restarted, option 150 changed
post operations '{"do": "upload-certificate", "certificate": "CallManager", "from": "destination", "to": "source",
                  "stores": ["CallManager-trust", "Phone-SAST-trust"]}' >/dev/null
post operations '{"do": "upload-certificate", "certificate": "CAPF", "from": "source", "to": "destination",
                  "stores": ["CAPF-trust"]}' >/dev/null
post operations '{"do": "restart-service", "cluster": "source", "service": "TVS"}' >/dev/null
post operations '{"do": "restart-service", "cluster": "destination", "service": "CallManager"}' >/dev/null
post operations '{"do": "set-option-150", "cluster": "destination"}' >/dev/null

# TVS does not know the new signer, once: the phone stays where it was
post faults '{"id": "unknown", "point": "tvs.response", "action": "not-found", "times": 2}' >/dev/null
post "phones/$phone/reset" '{}' >/dev/null
cucm-lab wait --for "phones.$phone.registered == 'source'" --timeout 30 >/dev/null && echo "stayed at the source"
cucm-lab events --kind phone.trust_list_refused
cucm-lab fault end unknown >/dev/null

# without the fault it moves; the exit code of `wait` is the answer
post "phones/$phone/reset" '{}' >/dev/null
cucm-lab wait --for "phones.$phone.registered == 'destination'" --timeout 30 >/dev/null && echo "moved"
