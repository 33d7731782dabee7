// Masks in the browser: COCO's compressed run lengths, drawing, and the rule that selects candidates.

/** Cumulative ends of the runs of a compressed RLE, background first, in column-major order. */
export function runEnds(counts) {
  const lengths = [];
  for (let at = 0; at < counts.length;) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const bits = counts.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      more = (bits & 32) !== 0;
      shift += 5;
      if (!more && (bits & 16) && shift < 32) value |= -1 << shift;
    }
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  const ends = new Uint32Array(lengths.length);
  let end = 0;
  lengths.forEach((length, number) => { ends[number] = end += length; });
  return ends;
}

/** A mask at the size it was sent in. */
export class Mask {
  constructor(counts, [height, width]) {
    Object.assign(this, { counts, height, width, stamps: new Map() });
  }

  get ends() {
    return this._ends ??= runEnds(this.counts);
  }

  /** Whether a pixel is inside, by binary search among the runs. */
  contains(x, y) {
    const ends = this.ends, at = x * this.height + y;
    let low = 0, high = ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ends[middle] <= at) low = middle + 1; else high = middle;
    }
    return low < ends.length && (low & 1) === 1;
  }

  /** Calls visit(x, y0, y1) for every vertical piece, y1 exclusive. */
  pieces(visit) {
    const { ends, height } = this;
    for (let run = 1; run < ends.length; run += 2) {
      let start = ends[run - 1];
      while (start < ends[run]) {
        const x = Math.floor(start / height), last = Math.min(ends[run], (x + 1) * height);
        visit(x, start - x * height, last - x * height);
        start = last;
      }
    }
  }

  /** x0, y0, x1, y1, right and bottom exclusive, and the number of pixels. */
  get box() {
    if (!this._box) {
      let x0 = Infinity, y0 = Infinity, x1 = 0, y1 = 0, area = 0;
      this.pieces((x, top, bottom) => {
        x0 = Math.min(x0, x); x1 = Math.max(x1, x + 1);
        y0 = Math.min(y0, top); y1 = Math.max(y1, bottom);
        area += bottom - top;
      });
      this._box = area ? { x0, y0, x1, y1, area } : { x0: 0, y0: 0, x1: 0, y1: 0, area: 0 };
    }
    return this._box;
  }

  /** A pixel inside that is near the middle: the middle of the longest piece. */
  get inside() {
    let best = { x: 0, y: 0, length: 0 };
    this.pieces((x, top, bottom) => {
      if (bottom - top > best.length) best = { x, y: (top + bottom - 1) >> 1, length: bottom - top };
    });
    return best;
  }

  /** A canvas of the box with the mask filled and outlined in a colour [r, g, b]. */
  stamp(colour, fill = 0.45, edge = 1) {
    const key = `${colour} ${fill} ${edge}`;
    if (this.stamps.has(key)) return this.stamps.get(key);
    const { x0, y0, x1, y1, area } = this.box;
    if (!area) return null;
    const width = x1 - x0, height = y1 - y0, filled = new Uint8Array(width * height);
    this.pieces((x, top, bottom) => {
      for (let y = top; y < bottom; y++) filled[(y - y0) * width + x - x0] = 1;
    });
    const canvas = document.createElement("canvas");
    canvas.width = width; canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    const reach = Math.max(1, Math.round(Math.max(this.width, this.height) / 500));
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const at = y * width + x;
        if (!filled[at]) continue;
        const border = x < reach || y < reach || x >= width - reach || y >= height - reach
          || !filled[at - reach] || !filled[at + reach] || !filled[at - reach * width] || !filled[at + reach * width];
        image.data.set([...colour, 255 * (border ? edge : fill)], 4 * at);
      }
    }
    context.putImageData(image, 0, 0);
    this.stamps.set(key, canvas);
    return canvas;
  }

  draw(context, colour, fill, edge) {
    const stamp = this.stamp(colour, fill, edge);
    if (stamp) context.drawImage(stamp, this.box.x0, this.box.y0);
  }
}

/** The candidates of a picture or of one answer. */
export class Candidates {
  constructor(record) {
    this.size = record.size;
    this.masks = record.counts.map((counts) => new Mask(counts, record.size));
    this.areas = record.areas;
    this.duplicates = record.counts.map(() => new Set());
    for (const [a, b] of record.duplicates) {
      this.duplicates[a].add(b);
      this.duplicates[b].add(a);
    }
  }

  /** For every pixel the smallest candidate there plus one, 0 for none: (height * width,), rows first. */
  get index() {
    if (!this._index) {
      const [height, width] = this.size;
      this._index = new Uint16Array(height * width);
      const order = this.masks.map((_, number) => number).sort((a, b) => this.areas[b] - this.areas[a]);
      for (const number of order) {
        this.masks[number].pieces((x, top, bottom) => {
          for (let y = top; y < bottom; y++) this._index[y * width + x] = number + 1;
        });
      }
    }
    return this._index;
  }

  /** The smallest candidate at a pixel, or -1. */
  at(x, y) {
    return this.index[y * this.size[1] + x] - 1;
  }

  /** All candidates at a pixel, the smallest first. */
  allAt(x, y) {
    const found = this.masks.flatMap((mask, number) => mask.contains(x, y) ? [number] : []);
    return found.sort((a, b) => this.areas[a] - this.areas[b]);
  }

  /** The rule of the server: at least the threshold, not empty, of duplicates the better one; by falling score. */
  select(scores, threshold) {
    const cut = Math.fround(threshold), chosen = [], reasons = new Map();
    const order = scores.map((_, number) => number).sort((a, b) => scores[b] - scores[a] || a - b);
    for (const number of order) {
      if (scores[number] < cut || !this.areas[number]) continue;
      const better = chosen.find((other) => this.duplicates[number].has(other));
      if (better === undefined) chosen.push(number);
      else reasons.set(number, better);
    }
    return { chosen, reasons };
  }
}
