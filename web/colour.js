// Colours of cells. Every ramp changes steadily in lightness from the background on, so it reads
// the same with any colour vision and in print.

const RAMPS = {
  ember: {
    dark: [
      [36, 20, 66],
      [96, 24, 110],
      [168, 40, 100],
      [226, 85, 58],
      [250, 152, 40],
      [253, 214, 92],
      [255, 253, 220],
    ],
    light: [
      [255, 240, 214],
      [254, 205, 140],
      [247, 152, 82],
      [222, 92, 70],
      [170, 40, 92],
      [98, 18, 100],
      [40, 8, 58],
    ],
  },
  sea: {
    dark: [
      [16, 30, 62],
      [20, 62, 104],
      [18, 102, 126],
      [38, 144, 130],
      [102, 186, 118],
      [182, 220, 112],
      [250, 250, 200],
    ],
    light: [
      [228, 244, 214],
      [176, 224, 190],
      [112, 194, 184],
      [56, 152, 174],
      [34, 106, 152],
      [34, 60, 116],
      [24, 22, 70],
    ],
  },
  gray: {
    dark: [
      [38, 38, 42],
      [110, 110, 116],
      [180, 180, 186],
      [255, 255, 255],
    ],
    light: [
      [230, 230, 232],
      [160, 160, 164],
      [90, 90, 94],
      [0, 0, 0],
    ],
  },
};

export const STEPS = 256;

/** `STEPS` colours as 0xAABBGGRR, which is how a little-endian canvas stores them. */
export function ramp(palette, theme) {
  const stops = (RAMPS[palette] ?? RAMPS.ember)[theme === "light" ? "light" : "dark"];
  const colours = new Uint32Array(STEPS);
  for (let step = 0; step < STEPS; step += 1) {
    const at = (step / (STEPS - 1)) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    const mix = (channel) =>
      Math.round(
        stops[low][channel] + (stops[low + 1][channel] - stops[low][channel]) * (at - low),
      );
    colours[step] = (0xff000000 | (mix(2) << 16) | (mix(1) << 8) | mix(0)) >>> 0;
  }
  return colours;
}

export function css(colour) {
  return `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;
}

/** Colours of blocks, whose operations lie somewhere in them: greys that no cell has. */
export function greys(theme) {
  const colours = new Uint32Array(STEPS);
  for (let step = 0; step < STEPS; step += 1) {
    const part = step / (STEPS - 1);
    const grey = Math.round(theme === "light" ? 226 - 120 * part : 44 + 110 * part);
    colours[step] = (0xff000000 | (grey << 16) | (grey << 8) | grey) >>> 0;
  }
  return colours;
}
