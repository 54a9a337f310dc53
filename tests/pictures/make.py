#!/usr/bin/env python3
"""Writes `files/` and the pixels that Pillow sees in them (`expected.rgb`, `expected.json`).

Needs NumPy, Pillow, cjpeg (libjpeg-turbo-progs), tiffcp (libtiff-tools),
webpmux (webp), and ImageMagick's convert. The
tests need none of them: run this only to add a case, and look at what changed.
"""
import io, json, os, shutil, struct, subprocess, sys, tempfile, zlib
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "files")
TMP = tempfile.mkdtemp()
expected = {}


def scene(w=19, h=13, seed=1):
    """A picture with gradients, an edge and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    a = np.stack([x * 255 // max(w - 1, 1), y * 255 // max(h - 1, 1), 255 - (x + y) * 255 // (w + h - 2)], -1)
    a[h // 3 : h // 2, w // 4 : w // 2] = (250, 20, 60)
    return np.clip(a + rng.integers(-6, 7, a.shape), 0, 255).astype(np.uint8)


SMALL, WIDE = scene(), scene(27, 21)
RGB, BIG = Image.fromarray(SMALL), Image.fromarray(WIDE)
GRAY = RGB.convert("L")
ALPHA = np.clip(np.mgrid[:13, :19][1] * 20 - 20, 0, 255).astype(np.uint8)
RGBA = Image.fromarray(np.dstack([SMALL, ALPHA]))
LA = Image.merge("LA", (GRAY, Image.fromarray(ALPHA)))


def add(name, data, pixels=None, mean=0.0, most=0):
    """Keeps a file with what Pillow sees, or with `pixels` where Pillow sees something else on purpose."""
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)
    if pixels is None:
        try:
            with Image.open(io.BytesIO(data)) as im:
                pixels = np.asarray(ImageOps.exif_transpose(im).convert("RGB"))
        except Exception as error:
            sys.exit(f"{name}: Pillow does not read it ({error}): give the pixels")
    pixels = np.asarray(pixels, np.uint8)
    assert pixels.ndim == 3, name
    expected[name] = (pixels, mean, most)


def refused(name, data):
    """Keeps a file that is refused; the words are in the test."""
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)


def saved(im, kind, **options):
    b = io.BytesIO()
    im.save(b, kind, **options)
    return b.getvalue()


def tool(*command, data=None):
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def exif(orientation):
    e = Image.Exif()
    e[0x112] = orientation
    return e


# ---------------------------------------------------------------- JPEG

def ppm(a):
    return b"P6 %d %d 255\n" % (a.shape[1], a.shape[0]) + a.tobytes()


def cjpeg(*options, a=WIDE):
    return tool("cjpeg", "-quality", "85", *options, data=ppm(a))


def scans(text):
    path = os.path.join(TMP, "scans")
    open(path, "w").write(text)
    return ["-scans", path]


def jpeg():
    for s in ["1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "4x2", "2x4", "3x1", "1x3", "3x2",
              "1x1,2x1,2x1", "1x1,1x2,1x2", "1x1,2x2,2x2", "2x1,1x1,2x1", "2x2,2x1,1x2", "2x2,1x2,2x1", "2x2,2x2,1x1"]:
        n = s.replace(",", "-")
        add(f"sample-{n}.jpg", cjpeg("-sample", s))
        add(f"sample-{n}-progressive.jpg", cjpeg("-sample", s, "-progressive"))
    three = "0;\n1;\n2;\n"
    for s in ["2x2", "1x1,2x2,2x2", "2x1", "3x1"]:
        add(f"scans-{s.replace(',', '-')}.jpg", cjpeg("-sample", s, *scans(three)))
    add("scans-mixed.jpg", cjpeg("-sample", "2x2", *scans("0;\n1 2;\n")))
    add("restart.jpg", cjpeg("-restart", "2B"))
    add("restart-progressive.jpg", cjpeg("-progressive", "-restart", "1"))
    add("restart-scans.jpg", cjpeg("-sample", "2x2", "-restart", "3B", *scans(three)))
    for s in ["1x1", "2x2", "1x1,2x2,2x2"]:
        n = s.replace(",", "-")
        add(f"arithmetic-{n}.jpg", cjpeg("-arithmetic", "-sample", s))
        add(f"arithmetic-{n}-progressive.jpg", cjpeg("-arithmetic", "-progressive", "-sample", s))
    add("arithmetic-restart.jpg", cjpeg("-arithmetic", "-restart", "3B"))
    add("arithmetic-restart-progressive.jpg", cjpeg("-arithmetic", "-progressive", "-restart", "1"))
    add("arithmetic-gray.jpg", cjpeg("-arithmetic", "-grayscale"))
    add("gray.jpg", cjpeg("-grayscale"))
    add("gray-progressive.jpg", cjpeg("-grayscale", "-progressive"))
    gray22 = bytearray(cjpeg("-grayscale", a=scene(21, 21)))
    sof = gray22.index(b"\xff\xc0")
    gray22[sof + 11] = 0x22
    add("gray-2x2.jpg", bytes(gray22))
    add("rgb.jpg", cjpeg("-rgb"))
    for q in [1, 10, 100]:
        add(f"quality-{q}.jpg", cjpeg("-quality", str(q)))
    add("quality-1-progressive.jpg", cjpeg("-quality", "1", "-progressive"))
    add("fine-tables.jpg", cjpeg("-quality", "3", "-qslots", "0"))
    for w, h in [(1, 1), (2, 2), (3, 3), (5, 1), (1, 5), (8, 8), (9, 17), (16, 16), (17, 33)]:
        add(f"size-{w}x{h}.jpg", saved(Image.fromarray(scene(w, h) if w * h > 1 else WIDE[:1, :1]), "JPEG", subsampling=2, quality=90))
    add("size-2x9-4-2-2.jpg", saved(Image.fromarray(scene(2, 9)), "JPEG", subsampling=1, quality=90))
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    add("noise.jpg", saved(noise, "JPEG", quality=95, subsampling=2))
    add("noise-4-4-4.jpg", saved(noise, "JPEG", quality=30, subsampling=0))
    add("noise-progressive.jpg", saved(noise, "JPEG", quality=99, progressive=True))
    add("successive.jpg", cjpeg("-sample", "2x2", *scans("0 1 2: 0-0, 0, 2;\n0: 1-5, 0, 2;\n2: 1-63, 0, 1;\n1: 1-63, 0, 1;\n0: 6-63, 0, 2;\n0: 1-63, 2, 1;\n0 1 2: 0-0, 2, 1;\n0 1 2: 0-0, 1, 0;\n2: 1-63, 1, 0;\n1: 1-63, 1, 0;\n0: 1-63, 1, 0;\n")))
    cmyk = Image.merge("CMYK", [Image.fromarray(c) for c in (WIDE[..., 0], WIDE[..., 1], WIDE[..., 2], WIDE[..., 0] // 3)])
    add("cmyk.jpg", saved(cmyk, "JPEG", quality=90))
    open(f"{TMP}/c.tif", "wb").write(saved(cmyk, "TIFF"))
    tool("convert", f"{TMP}/c.tif", "-quality", "85", "-sampling-factor", "2x2", f"{TMP}/c.jpg")
    add("cmyk-magick.jpg", open(f"{TMP}/c.jpg", "rb").read())
    plain = saved(cmyk, "JPEG", quality=90)
    at = plain.index(b"\xff\xeeAdobe"[:2])
    at = plain.index(b"\xff\xee")
    length = struct.unpack(">H", plain[at + 2 : at + 4])[0]
    add("cmyk-without-adobe.jpg", plain[:at] + plain[at + 2 + length :])
    ycck = bytearray(plain)
    ycck[at + 4 + 11] = 2
    add("ycck.jpg", bytes(ycck))
    rgb = cjpeg("-rgb", "-sample", "1x1")
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" 
    jfif = cjpeg("-sample", "1x1")
    at = jfif.index(b"\xff\xe0")
    bare = jfif[:at] + jfif[at + 18 :]
    add("without-jfif.jpg", bare)
    add("adobe-rgb.jpg", bare[:2] + adobe + b"\0" + bare[2:])
    add("adobe-ycc.jpg", bare[:2] + adobe + b"\1" + bare[2:])
    add("jfif-and-adobe.jpg", jfif[: at + 18] + adobe + b"\0" + jfif[at + 18 :])
    whole = saved(BIG, "JPEG", quality=80)
    rng = np.random.default_rng(5)
    add("trailer.jpg", whole + b"\xff\xda\0\x0c\xff\xd9" * 3 + b"\xff\xda" + rng.integers(0, 256, 500, dtype=np.uint8).tobytes() + b"\xff\xda\1")
    add("trailer-jpeg.jpg", whole + saved(GRAY, "JPEG"))
    add("trailer-progressive.jpg", saved(BIG, "JPEG", progressive=True) + b"\xff\xda\0\0")
    add("no-end.jpg", whole[:-2], np.asarray(Image.open(io.BytesIO(whole)).convert("RGB")))
    add("fill-bytes.jpg", whole[:2] + b"\xff\xff" + whole[2:-2] + b"\xff\xff\xff" + whole[-2:])
    add("comment.jpg", whole[:2] + b"\xff\xfe\0\x08\xff\xd9\xff\xda\0\0" + whole[2:])
    thumb = b"\xff\xe1" + struct.pack(">H", 2 + len(whole)) + whole
    add("thumbnail.jpg", whole[:2] + thumb + whole[2:])
    for o in range(1, 9):
        add(f"exif-{o}.jpg", saved(RGB, "JPEG", exif=exif(o), quality=90))
    add("exif-9.jpg", saved(RGB, "JPEG", exif=exif(9), quality=90))
    le = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    add("exif-little-endian.jpg", whole[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(le)) + le + whole[2:])
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    add("xmp-8.jpg", whole[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(xmp)) + xmp + whole[2:])
    add("exif-and-xmp.jpg", whole[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(le)) + le + b"\xff\xe1" + struct.pack(">H", 2 + len(xmp)) + xmp + whole[2:])
    for name in ["photo.jfif", "photo.jpe", "photo", "photo.png", "photo.dat"]:
        add(name, whole)
    # What is refused.
    refused("cut.jpg", whole[: len(whole) // 2])
    refused("cut-progressive.jpg", saved(BIG, "JPEG", progressive=True)[:-300])
    refused("cut-ended.jpg", whole[: len(whole) * 2 // 3] + b"\xff\xd9")
    refused("cut-arithmetic.jpg", cjpeg("-arithmetic")[:-40])
    refused("header-only.jpg", whole[:100])
    twelve = bytearray(whole)
    sof = twelve.index(b"\xff\xc0")
    twelve[sof + 4] = 12
    refused("12-bit.jpg", bytes(twelve))
    lossless = bytearray(whole)
    lossless[sof + 1] = 0xC3
    refused("lossless.jpg", bytes(lossless))
    huge = bytearray(whole)
    huge[sof + 5 : sof + 9] = b"\xff\xff\xff\xff"
    refused("huge.jpg", bytes(huge))
    flat = bytearray(whole)
    flat[sof + 5 : sof + 7] = b"\0\0"
    refused("flat.jpg", bytes(flat))
    dht = whole.index(b"\xff\xc4")
    add("standard-huffman.jpg", whole[:dht] + whole[whole.index(b"\xff\xda") :])


# ---------------------------------------------------------------- PNG

def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(rows, w, h, depth, colour, extra=b"", after=b""):
    body = b"".join(b"\0" + row for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, 0)) + extra + chunk(b"IDAT", zlib.compress(body)) + after + chunk(b"IEND", b"")


def packed(values, bits):
    """Rows of `bits`-bit values, the first highest."""
    rows = []
    for row in values:
        s = "".join(format(int(v), f"0{bits}b") for v in row)
        s += "0" * (-len(s) % 8)
        rows.append(bytes(int(s[i : i + 8], 2) for i in range(0, len(s), 8)))
    return rows


def png():
    whole = saved(RGB, "PNG")
    add("rgb.png", whole)
    add("gray.png", saved(GRAY, "PNG"))
    add("rgba.png", saved(RGBA, "PNG"))
    add("la.png", saved(LA, "PNG"))
    for bits in [1, 2, 4]:
        add(f"gray-{bits}.png", raw_png(packed(np.asarray(GRAY) >> (8 - bits), bits), 19, 13, bits, 0))
        p = RGB.quantize(2**bits)
        palette = bytes(p.getpalette()[: 3 * 2**bits])
        extra = chunk(b"PLTE", palette)
        add(f"palette-{bits}.png", raw_png(packed(np.asarray(p), bits), 19, 13, bits, 3, extra))
        add(f"palette-{bits}-transparent.png", raw_png(packed(np.asarray(p), bits), 19, 13, bits, 3, extra + chunk(b"tRNS", b"\0\x80")))
    p = RGB.quantize(100)
    add("palette-8.png", saved(p, "PNG"))
    add("palette-8-transparent.png", saved(p, "PNG", transparency=bytes(range(0, 200, 2))))
    add("gray-transparent.png", saved(GRAY, "PNG", transparency=100))
    add("rgb-transparent.png", saved(RGB, "PNG", transparency=tuple(int(c) for c in SMALL[3, 3])))
    wide = (SMALL.astype(np.uint16) * 257 + np.random.default_rng(2).integers(-120, 120, SMALL.shape)).clip(0, 65535).astype(np.uint16)
    # Pillow keeps the high byte of 16-bit colours, which is at most one less than scaling.
    add("rgb-16.png", raw_png([r.astype(">u2").tobytes() for r in wide], 19, 13, 16, 2), ((wide.astype(int) + 128) // 257))
    add("rgba-16.png", raw_png([r.astype(">u2").tobytes() for r in np.dstack([wide, ALPHA.astype(np.uint16) * 257])], 19, 13, 16, 6), ((wide.astype(int) + 128) // 257))
    # Pillow cuts 16-bit gray off at 255; scaled it is the picture.
    gray = wide[..., 0]
    add("gray-16.png", raw_png([r.astype(">u2").tobytes() for r in gray], 19, 13, 16, 0), np.repeat(((gray.astype(int) + 128) // 257)[..., None], 3, -1))
    open(f"{TMP}/a.png", "wb").write(whole)
    tool("convert", f"{TMP}/a.png", "-interlace", "PNG", f"{TMP}/i.png")
    add("interlaced.png", open(f"{TMP}/i.png", "rb").read())
    ihdr = 33
    add("gamma.png", whole[:ihdr] + chunk(b"gAMA", struct.pack(">I", 100000)) + whole[ihdr:])
    add("no-end.png", whole[:-12])
    add("cut-in-end.png", whole[:-5])
    add("no-last-checksum.png", whole[:-14], SMALL)
    add("trailer.png", whole + b"more")
    add("two-pixel-chunks.png", (lambda z: whole[:ihdr] + chunk(b"IDAT", z[:40]) + chunk(b"IDAT", z[40:]) + chunk(b"IEND", b""))(zlib.compress(b"".join(b"\0" + r.tobytes() for r in SMALL))))
    for o in range(1, 9):
        add(f"exif-{o}.png", saved(RGB, "PNG", exif=exif(o)))
    add("exif-after.png", whole[:-12] + chunk(b"eXIf", exif(6).tobytes()[6:]) + whole[-12:])
    raw = exif(6).tobytes()
    text = b"\nexif\n%8d\n" % len(raw) + raw.hex().encode() + b"\n"
    add("exif-text.png", whole[:ihdr] + chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)) + whole[ihdr:])
    add("xmp-3.png", whole[:ihdr] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>3</tiff:Orientation>") + whole[ihdr:])
    add("animated.png", saved(RGB, "PNG", save_all=True, append_images=[BIG.resize((19, 13))]))
    add("animated.apng", saved(RGB, "PNG", save_all=True, append_images=[BIG.resize((19, 13))]))
    # Pillow refuses a wrong Adler-32; every pixel is there and every chunk's own checksum is right.
    z = bytearray(zlib.compress(b"".join(b"\0" + r.tobytes() for r in SMALL)))
    z[-1] ^= 1
    add("wrong-adler.png", whole[:ihdr] + chunk(b"IDAT", bytes(z)) + chunk(b"IEND", b""), SMALL)
    refused("cut.png", whole[: len(whole) // 2])
    refused("cut-row.png", whole[:-60])
    refused("no-pixels.png", whole[:ihdr] + chunk(b"IEND", b""))
    bad = bytearray(whole)
    bad[60] ^= 0x55
    refused("damaged.png", bytes(bad))


# ---------------------------------------------------------------- GIF, WebP, BMP, Netpbm, TGA

def gif_bytes(w, h, frame, indices, palette, packed=0x81, background=0, local=None, control=b"", interlaced=False):
    left, top, fw, fh = frame
    s, code = "", []
    for i, v in enumerate(indices):
        if i % 2 == 0:
            s += "001"
        s += format(v, "03b")[::-1]
    s += "101"
    s += "0" * (-len(s) % 8)
    lzw = bytes(int(s[i : i + 8][::-1], 2) for i in range(0, len(s), 8))
    blocks = b"".join(bytes([len(lzw[i : i + 255])]) + lzw[i : i + 255] for i in range(0, len(lzw), 255))
    flags = (0x81 if local else 0) | (0x40 if interlaced else 0)
    return b"GIF89a" + struct.pack("<HHBBB", w, h, packed, background, 0) + palette + control + b"," + struct.pack("<HHHHB", left, top, fw, fh, flags) + (local or b"") + b"\x02" + blocks + b"\0;"


def lzw_gif(w, h, frame, indices, palette, **k):
    # 3-bit codes with a clear code before every second pixel: "100" is clear, least bit first.
    data = gif_bytes(w, h, frame, indices, palette, **k)
    return data


def gif():
    pal = bytes([200, 60, 30, 40, 120, 220, 255, 255, 255, 90, 90, 90])
    other = bytes([1, 2, 3, 250, 240, 230, 10, 200, 10, 70, 80, 90])
    idx = [(x * y + x) % 4 for y in range(6) for x in range(7)]
    clear = b"\x21\xf9\x04\x01\x0a\x00\x02\x00"
    add("small-frame.gif", gif_bytes(16, 12, (4, 3, 7, 6), idx, pal, background=2))
    add("small-frame-transparent.gif", gif_bytes(16, 12, (4, 3, 7, 6), idx, pal, background=2, control=clear))
    add("small-frame-local.gif", gif_bytes(16, 12, (4, 3, 7, 6), idx, pal, background=1, local=other))
    add("small-frame-local-transparent.gif", gif_bytes(16, 12, (4, 3, 7, 6), idx, pal, background=1, local=other, control=clear))
    add("only-local.gif", gif_bytes(16, 12, (4, 3, 7, 6), idx, b"", packed=0, local=other))
    add("no-palette.gif", gif_bytes(16, 12, (4, 3, 7, 6), idx, b"", packed=0))
    add("interlaced.gif", gif_bytes(7, 6, (0, 0, 7, 6), idx, pal, interlaced=True))
    add("outside.gif", gif_bytes(8, 8, (4, 3, 7, 6), idx, pal))
    add("palette.gif", saved(RGB.quantize(64), "GIF"))
    add("gray.gif", saved(GRAY, "GIF"))
    add("transparent.gif", saved(RGB.quantize(64), "GIF", transparency=5))
    add("animated.gif", saved(RGB.quantize(64), "GIF", save_all=True, append_images=[BIG.resize((19, 13)).quantize(64)]))
    whole = saved(BIG.quantize(64), "GIF")
    add("no-end.gif", whole[:-1])
    add("trailer.gif", whole + b"more")
    refused("cut.gif", whole[: len(whole) // 2 + 200])


def webp():
    # Lossy: the upsampling of colours differs a little from libwebp's.
    add("lossy.webp", saved(BIG, "WEBP", quality=80), mean=1.0, most=12)
    add("lossless.webp", saved(RGB, "WEBP", lossless=True))
    add("lossless-alpha.webp", saved(RGBA, "WEBP", lossless=True, exact=True))
    big = BIG.copy()
    big.putalpha(Image.fromarray((np.mgrid[:21, :27][1] * 9).astype(np.uint8)))
    add("lossy-alpha.webp", saved(big, "WEBP", quality=80, exact=True), mean=1.0, most=12)
    add("animated.webp", saved(RGB, "WEBP", save_all=True, append_images=[BIG.resize((19, 13))], lossless=True))
    add("animated-alpha.webp", saved(RGBA, "WEBP", save_all=True, append_images=[LA.convert("RGBA")], lossless=True, exact=True))
    open(f"{TMP}/1.webp", "wb").write(saved(RGB, "WEBP", lossless=True))
    open(f"{TMP}/2.webp", "wb").write(saved(RGB.resize((29, 21)), "WEBP", lossless=True))
    tool("webpmux", "-frame", f"{TMP}/1.webp", "+100+4+2", "-frame", f"{TMP}/2.webp", "+100+0+0", "-bgcolor", "255,255,200,0", "-o", f"{TMP}/3.webp")
    add("small-frame.webp", open(f"{TMP}/3.webp", "rb").read())
    # The colours of the first frame's transparent pixels are kept: it is not blended.
    big.resize((19, 13)).save(f"{TMP}/1.webp", quality=80, exact=True)
    tool("webpmux", "-frame", f"{TMP}/1.webp", "+100+4+2", "-frame", f"{TMP}/2.webp", "+100+0+0", "-o", f"{TMP}/3.webp")
    add("small-frame-alpha.webp", open(f"{TMP}/3.webp", "rb").read(), mean=1.0, most=12)
    clear = RGB.copy()
    clear.putalpha(0)
    clear.save(f"{TMP}/1.webp", lossless=True, exact=True)
    tool("webpmux", "-frame", f"{TMP}/1.webp", "+100+0+0+0-b", "-o", f"{TMP}/3.webp")
    add("transparent-frame.webp", open(f"{TMP}/3.webp", "rb").read())
    for o in range(1, 9):
        add(f"exif-{o}.webp", saved(RGB, "WEBP", lossless=True, exif=exif(o)))
    add("xmp-6.webp", saved(RGB, "WEBP", lossless=True, xmp=b'<rdf:Description tiff:Orientation="6"/>'))
    refused("cut.webp", saved(RGB, "WEBP", lossless=True)[:200])


def bmp():
    add("rgb.bmp", saved(RGB, "BMP"))
    add("rgb.dib", saved(RGB, "BMP"))
    add("bare.dib", saved(RGB, "DIB"))
    add("gray.bmp", saved(GRAY, "BMP"))
    add("palette.bmp", saved(RGB.quantize(64), "BMP"))
    add("1-bit.bmp", saved(GRAY.convert("1"), "BMP"))
    add("rgba.bmp", saved(RGBA, "BMP"))
    whole = bytearray(saved(RGB, "BMP"))
    whole[22:26] = struct.pack("<i", -13)
    add("top-down.bmp", bytes(whole))

    def bitmap(bits, compression, palette, data, w=19, h=13, masks=b""):
        start = 54 + len(masks) + len(palette)
        return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + struct.pack("<IiiHHIIiiII", 40, w, h, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0) + masks + palette + data

    def lines(rows):
        return b"".join(r + b"\0" * (-len(r) % 4) for r in rows[::-1])

    p = RGB.quantize(16)
    palette = b"".join(bytes(p.getpalette()[i * 3 : i * 3 + 3][::-1]) + b"\0" for i in range(16))
    index = np.asarray(p)
    add("4-bit.bmp", bitmap(4, 0, palette, lines(packed(index, 4))))
    rle8 = b"".join(b"".join(bytes([1, v]) for v in row) + b"\0\0" for row in index[::-1]) + b"\0\1"
    add("rle-8.bmp", bitmap(8, 1, palette, rle8))
    rle4 = b"".join(b"".join(bytes([1, v << 4]) for v in row) + b"\0\0" for row in index[::-1]) + b"\0\1"
    add("rle-4.bmp", bitmap(4, 2, palette, rle4))
    c = SMALL.astype(int) >> 3
    five = (c[..., 0] << 10 | c[..., 1] << 5 | c[..., 2]).astype("<u2")
    # Five bits are scaled by rounding here and by cutting off in Pillow.
    add("555.bmp", bitmap(16, 0, b"", lines([r.tobytes() for r in five])), mean=1.0, most=1)
    six = (c[..., 0] << 11 | (SMALL[..., 1].astype(int) >> 2) << 5 | c[..., 2]).astype("<u2")
    add("565.bmp", bitmap(16, 3, b"", lines([r.tobytes() for r in six]), masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F)), mean=1.0, most=1)
    add("32-bit.bmp", bitmap(32, 0, b"", lines([r.tobytes() for r in np.dstack([SMALL[..., ::-1], ALPHA])])))
    refused("cut.bmp", bytes(whole[:300]))


def pnm():
    g, a = np.asarray(GRAY), SMALL
    bw = (g < 128).astype(int)
    text = lambda v: "\n".join(" ".join(str(int(x)) for x in row.reshape(-1)) for row in v).encode() + b"\n"
    add("plain.pbm", b"P1\n# a comment\n19 13\n" + text(bw))
    add("tight.pbm", b"P1\n19 13\n" + b"\n".join("".join(map(str, row)).encode() for row in bw))
    add("plain.pgm", b"P2\n19 # width\n13\n255\n" + text(g))
    add("plain.ppm", b"P3 19 13 255\n" + text(a))
    add("plain-15.pgm", b"P2 19 13 15\n" + text(g >> 4))
    add("plain-1000.ppm", b"P3 19 13 1000\n" + text(a.astype(int) * 3))
    add("raw.pbm", b"P4\n19 13\n" + b"".join(packed(bw, 1)))
    add("raw.pgm", b"P5\n# one\n# two\n19 13\n255\n" + g.tobytes())
    add("raw.ppm", b"P6\n19 13\n255\n" + a.tobytes())
    add("raw-31.pgm", b"P5 19 13 31\n" + (g >> 3).tobytes())
    add("raw-100.ppm", b"P6 19 13 100\n" + (a // 3).tobytes())
    scaled = lambda v, top: np.rint(v.astype(float) * 255 / top)
    wide = (a.astype(np.uint16) * 200 + 77)
    add("raw-65535.ppm", b"P6 19 13 65535\n" + wide.astype(">u2").tobytes(), scaled(wide, 65535))
    add("raw-51077.pgm", b"P5 19 13 51077\n" + wide[..., 0].astype(">u2").tobytes(), np.repeat(scaled(wide[..., :1], 51077), 3, -1))
    pam = lambda n, kind, v: b"P7\nWIDTH 19\nHEIGHT 13\nDEPTH %d\nMAXVAL 255\nTUPLTYPE %s\nENDHDR\n" % (n, kind) + v.tobytes()
    add("rgb.pam", pam(3, b"RGB", a), a)
    add("rgba.pam", pam(4, b"RGB_ALPHA", np.asarray(RGBA)), a)
    add("la.pam", pam(2, b"GRAYSCALE_ALPHA", np.asarray(LA)), np.repeat(g[..., None], 3, -1))
    refused("cut.ppm", b"P6\n19 13\n255\n" + a.tobytes()[:-9])
    refused("cut-plain.pgm", b"P2 19 13 255\n" + text(g)[:200])


def tga():
    add("rgb.tga", saved(RGB, "TGA"))
    add("rgba.tga", saved(RGBA, "TGA"))
    add("gray.tga", saved(GRAY, "TGA"))
    add("la.tga", saved(LA, "TGA"))
    add("palette.tga", saved(RGB.quantize(64), "TGA"))
    for kind, im in [("rgb", RGB), ("rgba", RGBA), ("gray", GRAY), ("palette", RGB.quantize(8))]:
        add(f"{kind}-rle.tga", saved(im, "TGA", compression="tga_rle"))
    add("top.tga", saved(RGB, "TGA", orientation=1))
    # Columns from right to left.
    for name, flags in [("right", 0x10), ("top-right", 0x30)]:
        b = bytearray(saved(RGB, "TGA"))
        b[17] = flags
        add(f"{name}.tga", bytes(b))
    head = struct.pack("<BBBHHBHHHHBB", 3, 0, 2, 0, 0, 0, 0, 0, 19, 13, 16, 0x20) + b"abc"
    c = SMALL.astype(int) >> 3
    five = (c[..., 0] << 10 | c[..., 1] << 5 | c[..., 2] | 0x8000).astype("<u2")
    add("16-bit.tga", head + five.tobytes())
    refused("cut.tga", saved(RGB, "TGA")[:300])
    refused("cut-rle.tga", saved(RGB, "TGA", compression="tga_rle")[:200])


# ---------------------------------------------------------------- TIFF

def raw_tiff(tags, data, order="<", wide=False):
    """A TIFF with one strip or several (`data` is a list), written by hand."""
    strips = data if isinstance(data, list) else [data]
    tags = dict(tags)
    body, offsets = b"", []
    start = 16 if wide else 8
    for s in strips:
        offsets.append(start + len(body))
        body += s + b"\0" * (len(s) % 2)
    at, count = (324, 325) if 322 in tags else (273, 279)
    tags[at], tags[count] = (4, offsets), (4, [len(s) for s in strips])
    size = 8 if wide else 4
    directory = start + len(body)
    extra_at = directory + (8 if wide else 2) + len(tags) * (20 if wide else 12) + size
    entries, extra = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        raw = b"".join(struct.pack(order + {1: "B", 3: "H", 4: "I", 5: "II", 7: "B"}[kind], *(v if kind == 5 else (v,))) for v in values)
        entries += struct.pack(order + ("HHQ" if wide else "HHI"), tag, kind, len(values))
        if len(raw) <= size:
            entries += raw.ljust(size, b"\0")
        else:
            entries += struct.pack(order + ("Q" if wide else "I"), extra_at + len(extra))
            extra += raw + b"\0" * (len(raw) % 2)
    mark = b"II" if order == "<" else b"MM"
    if wide:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, directory)
        n = struct.pack(order + "Q", len(tags))
    else:
        head = mark + struct.pack(order + "HI", 42, directory)
        n = struct.pack(order + "H", len(tags))
    return head + body + n + entries + b"\0" * size + extra


def tags(bits, photometric, samples=1, w=19, h=13, compression=1, **more):
    t = {256: (3, [w]), 257: (3, [h]), 258: (3, [bits] * samples), 259: (3, [compression]), 262: (3, [photometric]), 277: (3, [samples]), 278: (3, [h])}
    t.update({int(k[1:]): v for k, v in more.items()})
    return t


def tiff():
    g = np.asarray(GRAY)
    three = lambda v: np.repeat(np.asarray(v)[..., None], 3, -1)
    for name, im in [("rgb", RGB), ("gray", GRAY), ("rgba", RGBA), ("la", LA), ("palette", RGB.quantize(64)), ("1-bit", GRAY.convert("1")), ("cmyk", RGB.convert("CMYK"))]:
        add(f"{name}.tif", saved(im, "TIFF"))
    # Pillow's own tables for YCbCr round differently by one.
    add("ycbcr.tif", saved(RGB.convert("YCbCr"), "TIFF"), mean=0.6, most=2)
    for c in ["tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits"]:
        add(f"{c}.tif", saved(BIG, "TIFF", compression=c))
        add(f"{c}-palette.tif", saved(RGB.quantize(64), "TIFF", compression=c))
    for c in ["group3", "group4"]:
        add(f"{c}.tif", saved(BIG.convert("1"), "TIFF", compression=c))
    add("jpeg.tif", saved(BIG, "TIFF", compression="jpeg", quality=85))
    add("jpeg-gray.tif", saved(BIG.convert("L"), "TIFF", compression="jpeg"))
    for o in range(1, 9):
        add(f"orientation-{o}.tif", saved(RGB, "TIFF", tiffinfo={0x112: o}))
    for predictor in ["lzw:2", "zip:2"]:
        open(f"{TMP}/a.tif", "wb").write(saved(BIG, "TIFF"))
        tool("tiffcp", "-c", predictor, f"{TMP}/a.tif", f"{TMP}/b.tif")
        add(f"predictor-{predictor.replace(':', '-')}.tif", open(f"{TMP}/b.tif", "rb").read())
    for name, options in [("strips", ["-r", "5"]), ("tiles", ["-t", "-w", "16", "-l", "16"]), ("planes", ["-p", "separate"]), ("planes-tiles", ["-p", "separate", "-t", "-w", "32", "-l", "16"]),
                          ("jpeg-tiles", ["-c", "jpeg:r:75", "-t", "-w", "16", "-l", "16"]), ("jpeg-strips", ["-c", "jpeg", "-r", "16"]), ("big-endian", ["-B"]), ("big", ["-8"]), ("big-big-endian", ["-8", "-B", "-c", "lzw"])]:
        tool("tiffcp", *options, f"{TMP}/a.tif", f"{TMP}/b.tif")
        add(f"{name}.tif", open(f"{TMP}/b.tif", "rb").read(), None if "jpeg" in name else WIDE)
    add("pages.tif", saved(RGB, "TIFF", save_all=True, append_images=[GRAY]))
    for bits in [2, 4]:
        rows = b"".join(packed(g >> (8 - bits), bits))
        add(f"gray-{bits}.tif", raw_tiff(tags(bits, 1), rows))
        add(f"white-is-zero-{bits}.tif", raw_tiff(tags(bits, 0), rows))
        p = RGB.quantize(2**bits)
        colours = np.array(p.getpalette()[: 3 * 2**bits]).reshape(-1, 3).T.reshape(-1) * 257
        add(f"palette-{bits}.tif", raw_tiff(tags(bits, 3, t320=(3, colours.tolist())), b"".join(packed(np.asarray(p), bits))))
    bw = b"".join(packed(g >> 7, 1))
    add("white-is-zero-1.tif", raw_tiff(tags(1, 0), bw))
    add("fill-order.tif", raw_tiff(tags(1, 1, t266=(3, [2])), bytes(int(format(b, "08b")[::-1], 2) for b in bw)))
    add("white-is-zero-8.tif", raw_tiff(tags(8, 0), g.tobytes()))
    colours = (np.array(RGB.quantize(16).getpalette()[:48]).reshape(-1, 3).T.reshape(-1)).tolist()
    wide = (SMALL.astype(np.uint16) * 257 + np.random.default_rng(2).integers(-120, 120, SMALL.shape)).clip(0, 65535).astype(np.uint16)
    scaled = (wide.astype(int) + 128) // 257
    for order, name in [("<", "le"), (">", "be")]:
        # Pillow keeps the high byte of 16-bit colours, and cuts 16-bit gray off at 255.
        add(f"rgb-16-{name}.tif", raw_tiff(tags(16, 2, 3), wide.astype(order + "u2").tobytes(), order), scaled)
        add(f"gray-16-{name}.tif", raw_tiff(tags(16, 1), wide[..., 0].astype(order + "u2").tobytes(), order), three(scaled[..., 0]))
        difference = wide.copy()
        difference[:, 1:] -= wide[:, :-1]
        add(f"rgb-16-{name}-predictor.tif", raw_tiff(tags(16, 2, 3, compression=8, t317=(3, [2])), zlib.compress(difference.astype(order + "u2").tobytes()), order), scaled)
        for kind, dtype in [(3, "f4"), (2, "i4"), (1, "u4"), (2, "i2")]:
            data = (g.astype(float) + (0.25 if kind == 3 else 0)).astype(order + dtype)
            add(f"gray-{dtype}-{name}.tif", raw_tiff(tags(data.itemsize * 8, 1, t339=(3, [kind])), data.tobytes(), order), three(g))
        for dtype in ["f2", "f8"]:
            data = g.astype(order + dtype)
            add(f"gray-{dtype}-{name}.tif", raw_tiff(tags(data.itemsize * 8, 1, t339=(3, [3])), data.tobytes(), order), three(g))
        f = g.astype(">f4").tobytes()
        rows = []
        for row in g.astype(">f4"):
            b = np.frombuffer(row.tobytes(), np.uint8).reshape(-1, 4).T.reshape(-1).astype(np.int16)
            rows.append(np.concatenate([b[:1], np.diff(b)]).astype(np.uint8).tobytes())
        add(f"float-predictor-{name}.tif", raw_tiff(tags(32, 1, compression=8, t339=(3, [3]), t317=(3, [3])), zlib.compress(b"".join(rows)), order), three(g))
    add("rgb-f4.tif", raw_tiff(tags(32, 2, 3, t339=(3, [3] * 3)), SMALL.astype("<f4").tobytes()), SMALL)
    associated = SMALL.astype(int) * ALPHA[..., None].astype(int) // 255
    data = np.dstack([associated, ALPHA]).astype(np.uint8).tobytes()
    for extra, name in [(1, "associated"), (2, "unassociated"), (0, "unspecified")]:
        add(f"alpha-{name}.tif", raw_tiff(tags(8, 2, 4, t338=(3, [extra])), data))
    add("alpha-untold.tif", raw_tiff(tags(8, 2, 4), data))
    planes = np.frombuffer(data, np.uint8).reshape(13, 19, 4)
    add("alpha-associated-planes.tif", raw_tiff(tags(8, 2, 4, t338=(3, [1]), t284=(3, [2])), [planes[..., i].tobytes() for i in range(4)]), expected["alpha-associated.tif"][0])
    five = np.dstack([SMALL, ALPHA, ALPHA])
    add("two-extra.tif", raw_tiff(tags(8, 2, 5, t338=(3, [0, 0])), five.tobytes()), SMALL)
    # Subsampled YCbCr without compression: units of luminances and two differences.
    ycc = np.asarray(Image.fromarray(scene(20, 12)).convert("YCbCr")).astype(int)
    units, seen = b"", np.zeros_like(ycc)
    for y in range(0, 12, 2):
        for x in range(0, 20, 2):
            block = ycc[y : y + 2, x : x + 2]
            cb, cr = block[..., 1].mean().astype(int), block[..., 2].mean().astype(int)
            units += bytes([*block[..., 0].reshape(-1), cb, cr])
            seen[y : y + 2, x : x + 2, 0], seen[y : y + 2, x : x + 2, 1], seen[y : y + 2, x : x + 2, 2] = block[..., 0], cb, cr
    add("ycbcr-2x2.tif", raw_tiff(tags(8, 6, 3, 20, 12, t530=(3, [2, 2])), units), np.asarray(Image.fromarray(seen.astype(np.uint8), "YCbCr").convert("RGB")), mean=0.6, most=2)
    add("12-bit.tif", raw_tiff(tags(12, 1), b"".join(packed(g.astype(int) * 16 + 7, 12))), three((g.astype(int) * 16 + 7) * 255 / 4095 + 0.5))
    add("no-counts.tif", (lambda d: d)(raw_tiff(tags(8, 1), g.tobytes())))
    whole = saved(BIG, "TIFF", compression="tiff_lzw")
    refused("cut.tif", raw_tiff(tags(8, 2, 3), SMALL.tobytes())[:200])
    refused("short-strip.tif", raw_tiff(tags(8, 2, 3), SMALL.tobytes()[:300]))
    refused("short-lzw.tif", raw_tiff(tags(8, 2, 3, compression=5), b"\x80\x0b\x60\x50\x22"))
    refused("float-0-1.tif", raw_tiff(tags(32, 1, t339=(3, [3])), (g / 255).astype("<f4").tobytes()))
    refused("int-65535.tif", raw_tiff(tags(32, 1, t339=(3, [2])), (g.astype("<i4") * 200).tobytes()))
    refused("lab.tif", saved(Image.merge("LAB", RGB.split()), "TIFF"))
    refused("zstd.tif", raw_tiff(tags(8, 1, compression=50000), g.tobytes()))
    refused("old-jpeg.tif", raw_tiff(tags(8, 6, 3, compression=6), g.tobytes()))
    refused("huge.tif", raw_tiff(tags(8, 1, w=60000, h=60000), g.tobytes()))
    refused("64-bit.tif", raw_tiff(tags(64, 1), g.tobytes()))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    for part in (jpeg, png, gif, webp, bmp, pnm, tga, tiff):
        part()
    refused("text.jpg", b"no picture at all, only words\n")
    refused("text", b"no picture at all, only words\n")
    refused("heic.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40)
    refused("empty.png", b"")
    pixels, index, places = b"", {}, {}
    for name, (a, mean, most) in sorted(expected.items()):
        raw = a.tobytes()
        if raw not in places:
            places[raw] = len(pixels)
            pixels += raw
        index[name] = {"width": a.shape[1], "height": a.shape[0], "at": places[raw], "mean": mean, "most": most}
    with open(os.path.join(HERE, "expected.rgb.zlib"), "wb") as f:
        f.write(zlib.compress(pixels, 9))
    with open(os.path.join(HERE, "expected.json"), "w") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in index.items()) + "\n}\n")
    total = sum(os.path.getsize(os.path.join(OUT, n)) for n in os.listdir(OUT))
    print(len(index), "pictures,", len(os.listdir(OUT)) - len(index), "refused,", total, "bytes")


main()
