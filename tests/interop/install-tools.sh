#!/usr/bin/env bash
# What the interop tests need from the system. In CI (CI=true, root, apt-get) it is installed; elsewhere the missing
# programs are named and their tests are visible skips.
set -euo pipefail

# program (or file):Debian package
wanted="openssl:openssl curl:curl tftp:tftp-hpa atftp:atftp in.tftpd:tftpd-hpa dnsmasq:dnsmasq-base
  kea-dhcp4:kea-dhcp4-server dhcpd:isc-dhcp-server udhcpc:udhcpc sipp:sip-tester sftp:openssh-client sshpass:sshpass
  ip:iproute2 unshare:util-linux node:nodejs gcc:gcc /usr/include/stdio.h:libc6-dev
  /usr/include/openssl/ssl.h:libssl-dev strace:strace chromium:chromium"
PATH="$PATH:/usr/sbin:/sbin"
missing=()
for pair in $wanted; do
  command -v "${pair%%:*}" >/dev/null || [ -e "${pair%%:*}" ] || missing+=("${pair##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing for the interop tests: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # a package must not start its service: the tests start their own, on addresses of their own
  apt-get update -qq
  RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "note: interop tests that need these Debian packages will be skipped: ${missing[*]}"
fi
