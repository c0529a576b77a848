#!/bin/sh
# Makes what `bureau net init` makes, with openssl: an authority, and for a bureau the certificates
# of its node and of one desk, and the key it signs with. See README.md beside this file.
#
#   make-certs.sh authority DIR NETWORK
#   make-certs.sh bureau AUTHORITY_DIR DIR NETWORK CODE NODE DESK
#
# Nothing is overwritten. Private keys are readable by their owner only.
set -eu
umask 077

AUTHORITY_DAYS=3650
CERTIFICATE_DAYS=365

fail() {
    echo "make-certs.sh: $1" >&2
    exit 2
}

# The alphabets are those of the node, so that nothing else gets into a certificate's name.
check_name() { # what, value, characters
    case "$2" in
        '' | *[!$3]* | -* | *-) fail "$1 must be of $3: '$2'" ;;
    esac
}

fresh_directory() {
    if [ -e "$1" ] && [ -n "$(ls -A "$1")" ]; then
        fail "$1 is not empty"
    fi
    mkdir -p "$1"
}

# openssl tells much on stderr that is no fault; where there is one, all of it is shown.
quietly() { # command
    said=$("$@" 2>&1) || {
        echo "$said" >&2
        exit 1
    }
}

# ECDSA P-256, because every TLS library takes it; PKCS#8 PEM.
tls_key() { # file
    quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

authority() { # directory, network
    check_name NETWORK "$2" 'a-z0-9.-'
    fresh_directory "$1"
    tls_key "$1/ca.key"
    # pathlen 0: it signs certificates of nodes and desks, never another authority.
    cat > "$1/ca.cnf" <<EOF
[req]
distinguished_name = name
x509_extensions = authority
prompt = no
[name]
CN = $2 authority
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
EOF
    quietly openssl req -x509 -new -sha256 -key "$1/ca.key" -config "$1/ca.cnf" \
        -days "$AUTHORITY_DAYS" -out "$1/ca.pem"
    rm "$1/ca.cnf"
}

# The holder makes the key and a request; the authority alone says what the certificate is for.
certificate() { # authority's directory, file without ending, common name, usage, names
    tls_key "$2.key"
    quietly openssl req -new -sha256 -key "$2.key" -subj "/CN=$3" -out "$2.csr"
    cat > "$2.cnf" <<EOF
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $4
subjectAltName = $5
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
EOF
    quietly openssl x509 -req -sha256 -in "$2.csr" -CA "$1/ca.pem" -CAkey "$1/ca.key" \
        -set_serial "0x$(openssl rand -hex 16)" -days "$CERTIFICATE_DAYS" \
        -extfile "$2.cnf" -out "$2.pem"
    rm "$2.csr" "$2.cnf"
}

bureau() { # authority's directory, directory, network, code, node, desk
    check_name NETWORK "$3" 'a-z0-9.-'
    check_name CODE "$4" 'A-Z0-9'
    check_name NODE "$5" 'a-z0-9-'
    check_name DESK "$6" 'a-z0-9-'
    [ -f "$1/ca.key" ] || fail "there is no authority in $1"
    fresh_directory "$2"
    mkdir "$2/tls" "$2/keys"
    cp "$1/ca.pem" "$2/tls/ca.pem"
    # Exactly one URI: it says who this is. The other names are for clients that check host names.
    certificate "$1" "$2/tls/node" "$4 node $5" 'serverAuth, clientAuth' \
        "URI:spiffe://$3/bureau/$4/node/$5, DNS:localhost, IP:127.0.0.1, IP:::1"
    certificate "$1" "$2/tls/desk-$6" "$4 desk $6" 'clientAuth' \
        "URI:spiffe://$3/bureau/$4/desk/$6"
    # What the bureau signs with: Ed25519, and not for TLS.
    quietly openssl genpkey -algorithm ed25519 -out "$2/keys/signing.pem"
    quietly openssl genpkey -algorithm x25519 -out "$2/keys/sealing.key"
    # The last 32 bytes of the DER form are the public key (RFC 8410); the roster lists it.
    printf '%s signing key: ' "$4"
    openssl pkey -in "$2/keys/signing.pem" -pubout -outform DER | tail -c 32 | openssl base64
}

case "${1-}" in
    authority) [ $# -eq 3 ] || fail 'usage: make-certs.sh authority DIR NETWORK' ;;
    bureau)
        [ $# -eq 7 ] || fail 'usage: make-certs.sh bureau AUTHORITY_DIR DIR NETWORK CODE NODE DESK'
        ;;
    *) fail 'usage: make-certs.sh authority|bureau ...' ;;
esac
"$@"
