#!/usr/bin/env bash
# What the benchmark compares with, and what its load client is compiled with. As root on Debian it is installed;
# elsewhere the missing packages are named, and the page says what could not be compared.
set -euo pipefail

# what must be there:Debian package
wanted="gcc:gcc nginx:nginx-light in.tftpd:tftpd-hpa dnsmasq:dnsmasq-base /usr/include/openssl/ssl.h:libssl-dev
  /usr/include/stdio.h:libc6-dev /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream"
PATH="$PATH:/usr/sbin:/sbin"
missing=()
for pair in $wanted; do
  command -v "${pair%%:*}" >/dev/null || [ -e "${pair%%:*}" ] || missing+=("${pair##*:}")
done
# as packages atftpd and tftpd-hpa shut each other out: this one is only unpacked, where bench/material.py finds it
atftpd_from_package() (
  command -v atftpd >/dev/null || [ -e out/peers/usr/sbin/atftpd ] && exit 0
  command -v apt-get >/dev/null || exit 0
  mkdir -p out/peers && cd out/peers
  if apt-get download -qq atftpd >/dev/null 2>&1; then dpkg-deb -x atftpd_*.deb . && rm -f atftpd_*.deb; fi
)
cd "$(dirname "$0")/.."
atftpd_from_package
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing for the benchmark: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # a package must not start its service: the benchmark starts its own, on addresses of its own
  RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "note: not compared without these Debian packages: ${missing[*]}"
fi
