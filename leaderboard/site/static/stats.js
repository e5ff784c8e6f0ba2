// The paired comparison of two rows, as spectral_tl_bench.leaderboard.analysis.compare computes it: Student's t with
// the bootstrap standard error over places and the effective number of places, and Holm's correction.
"use strict";
stbench.stats = (() => {
  const LEVEL = 0.95;

  // Little-endian float32 in base64.
  const unpack = (text) => {
    const bytes = Uint8Array.from(atob(text), (mark) => mark.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float64Array.from({ length: bytes.length / 4 }, (_, n) => view.getFloat32(4 * n, true));
  };

  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const known = (values) => values.filter((value) => !Number.isNaN(value));
  const deviation = (values) => {
    const found = known(values), middle = mean(found);
    return Math.sqrt(found.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (found.length - 1));
  };

  // Lanczos' approximation, g = 7, 9 terms: 15 digits.
  const LANCZOS = [0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313,
    -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];
  const logGamma = (x) => {
    let sum = LANCZOS[0];
    for (let n = 1; n < 9; n += 1) sum += LANCZOS[n] / (x - 1 + n);
    const t = x + 6.5;
    return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
  };

  // The regularised incomplete beta function, by Lentz' continued fraction.
  const fraction = (a, b, x) => {
    const tiny = 1e-300;
    const away = (value) => Math.abs(value) < tiny ? tiny : value;
    let c = 1, d = 1 / away(1 - (a + b) * x / (a + 1)), result = d;
    for (let m = 1; m < 1000; m += 1) {
      const even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
      d = 1 / away(1 + even * d); c = away(1 + even / c); result *= d * c;
      const odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
      d = 1 / away(1 + odd * d); c = away(1 + odd / c); result *= d * c;
      if (Math.abs(d * c - 1) < 1e-15) break;
    }
    return result;
  };
  const beta = (a, b, x) => {
    if (x <= 0) return 0;
    if (x >= 1) return 1;
    const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * fraction(a, b, x) / a : 1 - front * fraction(b, a, 1 - x) / b;
  };

  // Two-sided p of Student's t, and the t with p = 1 - LEVEL.
  const twoSided = (freedom, t) => beta(freedom / 2, 0.5, freedom / (freedom + t * t));
  const quantile = (freedom) => {
    let low = 0, high = 1;
    while (twoSided(freedom, high) > 1 - LEVEL) high *= 2;
    for (let n = 0; n < 200 && high - low > 1e-13 * high; n += 1) {
      const middle = (low + high) / 2;
      if (twoSided(freedom, middle) > 1 - LEVEL) low = middle; else high = middle;
    }
    return (low + high) / 2;
  };

  const unknown = (value, reason) => ({ value, error: NaN, freedom: NaN, reason });

  const estimate = (value, draws, places, effective, least) => {
    if (effective < least) {
      return unknown(value, places < least
        ? `${places} place${places === 1 ? "" : "s"}; an interval needs at least ${least}`
        : `${places} places count as ${effective.toFixed(1)} of equal size; an interval needs at least ${least}`);
    }
    return { value, error: deviation(draws), freedom: effective - 1, reason: "" };
  };

  // Interval, cut at what is possible, and p.
  const told = (found) => {
    if (found.reason) return { low: NaN, high: NaN, p: NaN };
    const half = quantile(found.freedom) * found.error;
    let p = found.error === 0 ? 0 : twoSided(found.freedom, found.value / found.error);
    if (found.value === 0) p = 1;
    return { low: Math.max(-1, found.value - half), high: Math.min(1, found.value + half), p };
  };

  const OTHER_PIXELS = "not evaluated on the same target pixels";

  // First minus second on one benchmark, over the seeds that both have.
  const difference = (first, second, least) => {
    const nothing = (reason, places = 0, value = NaN) => ({ a: NaN, b: NaN, places, draws: null, effective: NaN, found: unknown(value, reason) });
    if (!first || !second) return nothing("not completed by both");
    const shared = first.seeds.filter((seed) => second.seeds.includes(seed));
    const fewest = Math.min(...first.places, ...second.places);
    if (!shared.length) return nothing("no seed in common", fewest);
    const pick = (row, name) => shared.map((seed) => row[name][row.seeds.indexOf(seed)]);
    const targets = pick(first, "target");
    const places = Math.min(...pick(first, "places"), ...pick(second, "places"));
    if (pick(second, "target").some((target, n) => target !== targets[n])) return nothing(OTHER_PIXELS, places);
    const a = mean(pick(first, "miou")), b = mean(pick(second, "miou"));
    if (targets.some((target) => target !== targets[0])) {
      return { ...nothing(`the seeds were ${OTHER_PIXELS}`, places, a - b), a, b };
    }
    const drawn = (row) => {
      const arrays = (row.draws.length === 1 ? row.draws : pick(row, "draws")).map(unpack);
      return arrays[0].map((_, n) => mean(arrays.map((array) => array[n])));
    };
    const one = drawn(first), other = drawn(second);
    const draws = one.map((value, n) => value - other[n]);
    const effective = pick(first, "effective")[0];
    const fewer = shared.length < Math.max(first.seeds.length, second.seeds.length);
    const remark = fewer ? `seed${shared.length === 1 ? "" : "s"} ${shared.join(", ")} alone, which both have` : "";
    return { a, b, places, draws, effective, remark, found: estimate(a - b, draws, places, effective, least) };
  };

  // The mean of the differences; draws are added draw by draw, freedom by Welch and Satterthwaite,
  // lowered where targets share places.
  const combine = (value, parts) => {
    const reason = parts.map((part) => part.found.reason).find(Boolean);
    if (reason) return unknown(value, reason);
    const weight = 1 / parts.length;
    const total = new Float64Array(parts[0].draws.length);
    for (const part of parts) {
      const middle = mean(known(part.draws));
      part.draws.forEach((draw, n) => { total[n] += weight * (draw - middle); });
    }
    const variances = parts.map((part) => (weight * part.found.error) ** 2);
    const bottom = variances.reduce((sum, v, n) => sum + v ** 2 / parts[n].found.freedom, 0);
    const error = deviation(total), least = Math.min(...parts.map((part) => part.found.freedom));
    const alone = variances.reduce((sum, v) => sum + v, 0);
    const shared = error ? Math.min(1, alone / error ** 2) : 1;
    const freedom = bottom ? Math.max(least, shared * alone ** 2 / bottom) : least;
    return { value, error, freedom, reason: "" };
  };

  const holm = (values) => {
    const tested = values.map((p, n) => [p, n]).filter(([p]) => !Number.isNaN(p)).sort((left, right) => left[0] - right[0]);
    const adjusted = values.map(() => NaN);
    let soFar = 0;
    tested.forEach(([p, n], position) => {
      soFar = Math.max(soFar, Math.min(1, (tested.length - position) * p));
      adjusted[n] = soFar;
    });
    return adjusted;
  };

  // Lines in the order of the benchmarks, and one for their mean.
  const compare = (first, second, benchmarks) => {
    const parts = benchmarks.map((name) => difference(first.benchmarks[name], second.benchmarks[name], first.least));
    const lines = parts.map(({ a, b, places, remark, found }, n) => ({ benchmark: benchmarks[n], a, b, places, remark, difference: found.value, reason: found.reason, ...told(found) }));
    holm(lines.map((line) => line.p)).forEach((p, n) => { lines[n].holm = p; });
    const all = combine(mean(lines.map((line) => line.difference)), parts);
    return [...lines, {
      benchmark: "all", a: mean(lines.map((line) => line.a)), b: mean(lines.map((line) => line.b)),
      places: Math.min(...lines.map((line) => line.places)), difference: all.value, reason: all.reason, ...told(all), holm: NaN,
    }];
  };
  return { compare, twoSided, quantile };
})();
