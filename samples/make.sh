#!/bin/sh
# Makes every sample from samples/source.wav (any rate, mono). Needs ffmpeg 5 or later.
#
#   samples/make.sh                          the samples from samples/source.wav
#   SOURCE=voice.wav samples/make.sh         the samples from another recording
#   SPEAK=1 samples/make.sh                  first let the voice joe speak speech.txt again into source.wav
#
# The voice never says a sentence twice alike: after SPEAK every sample is another, and the tests have new frame counts.
# SHORT bounds the uncompressed stereo and 24-bit samples (seconds), so that the directory stays small.
set -eu
cd "$(dirname "$0")"
SOURCE=${SOURCE:-source.wav}
SHORT=${SHORT:-0.25}
VOXLINE=${VOXLINE:-voxline}

if [ -n "${SPEAK:-}" ]; then
    "$VOXLINE" speak --voice joe "$(cat speech.txt)" -o source.wav
fi

# make OUTPUT OPTION...: one output, reproducible byte for byte with one ffmpeg version.
make() {
    output=$1
    shift
    ffmpeg -v error -nostdin -y -i "$SOURCE" -map_metadata -1 -fflags +bitexact -flags:a +bitexact "$@" "$output"
}

# The right channel is the left one, quieter and 10 ms later: a mix that forgets a channel is noticed.
STEREO='aresample=44100,asplit[l][r];[r]adelay=10,volume=0.5[d];[l][d]join=inputs=2:channel_layout=stereo'

make speech-16k-mono-s16.wav         -ar 16000 -ac 1 -c:a pcm_s16le
make speech-8k-mono-mulaw.wav        -ar 8000 -ac 1 -c:a pcm_mulaw
make speech-8k-mono-adpcm-ima.wav    -ar 8000 -ac 1 -c:a adpcm_ima_wav
make speech-48k-mono-s24.wav         -t "$SHORT" -ar 48000 -ac 1 -c:a pcm_s24le
make speech-44k1-stereo-s16.wav      -t "$SHORT" -filter_complex "$STEREO" -c:a pcm_s16le
make speech-44k1-stereo.flac         -filter_complex "$STEREO" -sample_fmt s16 -c:a flac -compression_level 12
make speech-44k1-stereo.mp3          -filter_complex "$STEREO" -c:a libmp3lame -b:a 64k
make speech-44k1-stereo-vorbis.ogg   -filter_complex "$STEREO" -c:a libvorbis -q:a 1
make speech-44k1-stereo-aac.m4a      -filter_complex "$STEREO" -c:a aac -b:a 64k -movflags +faststart
make speech-16k-mono-alac.m4a        -ar 16000 -ac 1 -sample_fmt s16p -c:a alac -movflags +faststart
make speech-48k-stereo-opus.ogg      -filter_complex "$STEREO" -ar 48000 -c:a libopus -b:a 32k
make speech-16k-mono-voip.opus       -ar 16000 -ac 1 -c:a libopus -b:a 16k -application voip
make speech-48k-stereo-opus.webm     -filter_complex "$STEREO" -ar 48000 -c:a libopus -b:a 32k
make speech-8k-mono-alaw.caf         -ar 8000 -ac 1 -c:a pcm_alaw
make speech-16k-mono-s16.aiff        -t "$SHORT" -ar 16000 -ac 1 -c:a pcm_s16be
