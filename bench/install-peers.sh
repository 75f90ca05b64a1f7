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
