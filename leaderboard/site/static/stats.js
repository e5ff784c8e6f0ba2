// The paired comparison of two rows, as spectral_tl_bench.leaderboard.statistics.comparison computes it: Student's t with
// the bootstrap standard error over places and the effective number of places, the same with the variance over seeds
// added, and Holm's correction.
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
    const numbers = known(values), middle = mean(numbers);
    return Math.sqrt(numbers.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (numbers.length - 1));
  };

  // Student's t is the tangent of an angle with the density cos^(freedom - 1): its area from an angle on, by Simpson.
  const area = (freedom, from) => {
    const steps = 4000, width = (Math.PI / 2 - from) / steps;
    let sum = 0;
    for (let n = 0; n <= steps; n += 1) sum += (n % steps ? 2 + 2 * (n % 2) : 1) * Math.sin((steps - n) * width) ** (freedom - 1);
    return sum * width / 3;
  };

  // Two-sided p of Student's t, of one freedom or of several that are mixed by their shares; and the t with p = 1 - LEVEL.
  const alone = (freedom, t) => area(freedom, Math.atan(Math.abs(t) / Math.sqrt(freedom))) / area(freedom, 0);
  const twoSided = (freedom, t) => Array.isArray(freedom)
    ? freedom.reduce((sum, [share, one]) => sum + share * alone(one, t), 0)
    : alone(freedom, t);
  const quantile = (freedom) => {
    let low = 0, high = 1;
    while (twoSided(freedom, high) > 1 - LEVEL) high *= 2;
    while (high - low > 1e-12 * high) {
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

  // The difference, its interval, cut at what is possible, and p.
  const numbers = ({ value, error, freedom, reason }) => {
    if (reason) return { difference: value, reason, low: NaN, high: NaN, p: NaN };
    const half = quantile(freedom) * error;
    const p = value === 0 ? 1 : error === 0 ? 0 : twoSided(freedom, value / error);
    return { difference: value, reason, low: Math.max(-1, value - half), high: Math.min(1, value + half), p };
  };

  const OTHER_PIXELS = "not evaluated on the same target pixels";

  // First minus second on one benchmark, over the seeds that both have.
  const difference = (first, second, least) => {
    const nothing = (reason, places = 0, value = NaN) => ({ a: NaN, b: NaN, places, draws: null, effective: NaN, bySeed: [], result: unknown(value, reason) });
    if (!first || !second) return nothing("not completed by both");
    const shared = first.seeds.filter((seed) => second.seeds.includes(seed));
    const fewest = Math.min(...first.places, ...second.places);
    if (!shared.length) return nothing("no seed in common", fewest);
    const pick = (row, name) => shared.map((seed) => row[name][row.seeds.indexOf(seed)]);
    const targets = pick(first, "target");
    const places = Math.min(...pick(first, "places"), ...pick(second, "places"));
    if (pick(second, "target").some((target, n) => target !== targets[n])) return nothing(OTHER_PIXELS, places);
    const ours = pick(first, "miou"), theirs = pick(second, "miou");
    const a = mean(ours), b = mean(theirs), bySeed = ours.map((value, n) => value - theirs[n]);
    if (targets.some((target) => target !== targets[0])) {
      return { ...nothing(`the seeds were ${OTHER_PIXELS}`, places, a - b), a, b, bySeed };
    }
    const drawn = (row) => {
      const arrays = (row.draws.length === 1 ? row.draws : pick(row, "draws")).map(unpack);
      return arrays[0].map((_, n) => mean(arrays.map((array) => array[n])));
    };
    const other = drawn(second);
    const draws = drawn(first).map((value, n) => value - other[n]);
    const effective = pick(first, "effective")[0];
    const fewer = shared.length < Math.max(first.seeds.length, second.seeds.length);
    const remark = fewer ? `seed${shared.length === 1 ? "" : "s"} ${shared.join(", ")} alone, which both have` : "";
    return { a, b, places, draws, effective, remark, bySeed, result: estimate(a - b, draws, places, effective, least) };
  };

  // The mean of the differences; draws are added draw by draw, freedom by Welch and Satterthwaite,
  // lowered where targets share places.
  const combine = (value, parts) => {
    const reason = parts.map((part) => part.result.reason).find(Boolean);
    if (reason) return unknown(value, reason);
    const weight = 1 / parts.length;
    const total = new Float64Array(parts[0].draws.length);
    for (const part of parts) {
      const middle = mean(known(part.draws));
      part.draws.forEach((draw, n) => { total[n] += weight * (draw - middle); });
    }
    const variances = parts.map((part) => (weight * part.result.error) ** 2);
    const bottom = variances.reduce((sum, v, n) => sum + v ** 2 / parts[n].result.freedom, 0);
    const error = deviation(total), least = Math.min(...parts.map((part) => part.result.freedom));
    const alone = variances.reduce((sum, v) => sum + v, 0);
    const shared = error ? Math.min(1, alone / error ** 2) : 1;
    const freedom = bottom ? Math.max(least, shared * alone ** 2 / bottom) : least;
    return { value, error, freedom, reason: "" };
  };

  // Over places and seeds: the variances of both are added.
  const overSeeds = (places, parts) => {
    if (places.reason) return places;
    if (parts.some(({ bySeed }) => bySeed.length < 2)) return unknown(places.value, "one seed in common; what others would give needs at least two");
    const variances = [places.error ** 2, ...parts.map(({ weight, bySeed }) => weight ** 2 * deviation(bySeed) ** 2 / bySeed.length)];
    const freedoms = [places.freedom, ...parts.map(({ bySeed }) => bySeed.length - 1)];
    const total = variances.reduce((sum, v) => sum + v, 0);
    const mixed = variances.map((v, n) => [v / total, freedoms[n]]).filter(([share]) => share);
    return { value: places.value, error: Math.sqrt(total), freedom: total ? mixed : places.freedom, reason: "" };
  };

  const holm = (values) => {
    const tested = values.map((p, n) => [p, n]).filter(([p]) => !Number.isNaN(p)).sort(([left], [right]) => left - right);
    const adjusted = values.map(() => NaN);
    tested.reduce((soFar, [p, n], position) => adjusted[n] = Math.max(soFar, Math.min(1, (tested.length - position) * p)), 0);
    return adjusted;
  };

  // Lines in the order of the benchmarks, and one for their mean.
  const compare = (first, second, benchmarks) => {
    const parts = benchmarks.map((name) => difference(first.benchmarks[name], second.benchmarks[name], first.least));
    const runs = (result, seeds) => {
      const { low, high, p, reason } = numbers(overSeeds(result, seeds));
      return { runsLow: low, runsHigh: high, runsP: p, runsReason: reason };
    };
    const lines = parts.map(({ a, b, places, remark, bySeed, result }, n) => (
      { benchmark: benchmarks[n], a, b, places, remark, bySeed, ...numbers(result), ...runs(result, [{ weight: 1, bySeed }]) }));
    const column = (name) => lines.map((line) => line[name]);
    holm(column("p")).forEach((p, n) => { lines[n].holm = p; });
    holm(column("runsP")).forEach((p, n) => { lines[n].runsHolm = p; });
    const all = combine(mean(column("difference")), parts);
    const seeds = parts.map(({ bySeed }) => ({ weight: 1 / parts.length, bySeed }));
    return [...lines, { benchmark: "all", a: mean(column("a")), b: mean(column("b")), places: Math.min(...column("places")), bySeed: [], ...numbers(all), ...runs(all, seeds), holm: NaN, runsHolm: NaN }];
  };
  return { compare, twoSided, quantile };
})();
