// Data that the studio sends to the noise tab: see studio/lab/views.py.

/** A packed array: little-endian int16 times `scale` in base64, or float32 without `scale`. */
export interface PackedArray {
  shape: number[];
  scale?: number;
  data: string;
}

export interface Moments {
  mean: number;
  variance: number;
}

export interface ForwardData {
  size: number;
  seed: number;
  standardized: boolean;
  x0: PackedArray;
  eps: PackedArray;
  moments: { pixels: Moments; scaled: Moments; standardized: Moments };
  last: number;
  schedules: Record<string, { label: string; source: string; log_snr: PackedArray; beta: PackedArray }>;
}

export interface StepData {
  step: number;
  t: number;
  alpha: number;
  sigma: number;
  guidance: number;
  splitting: string;
  arithmetic: string;
  a: number;
  b: number[];
  coarse: number[];
  how: "exact" | "fitted" | "measured" | "unknown";
  rest: number | null;
  drawn: boolean;
  next: boolean;
  identity_error: number;
  difference: number | null;
}

export interface StageData {
  width: number;
  height: number;
  task: number;
  noise_level: number;
  condition: Record<string, string>;
  steps: StepData[];
  sheets: Record<string, string>;
  images?: Record<string, HTMLImageElement>;
}

export interface Look {
  index: number;
  maps: string;
  shares: number[];
  levels: string[];
  attention?: ImageData;
  images?: HTMLImageElement[];
}

export interface InspectionData {
  width: number;
  height: number;
  tile: [number, number];
  tiles: number;
  words: string[];
  sizes: number[];
  levels: { name: string; shape: [number, number, number]; shown: number }[];
  looks: Look[];
}

export type RunParams = Record<string, string | number | boolean>;

export interface ReverseData {
  key?: string;
  picture?: string;
  params?: RunParams | null;
  emphasized?: boolean;
  caption: string;
  sampler: string;
  stages: StageData[];
  looks?: InspectionData[];
}

export interface ComparedRun {
  label: string;
  fitted: boolean;
  picture: string;
  calls: number;
  rows: number | null;
  t: number[];
  called: number[];
  distance: number[];
  width: number;
  height: number;
  x0: string;
  image?: HTMLImageElement;
}

export interface CompareData {
  runs: ComparedRun[];
  converged: number;
}

export interface PlaneData {
  name: string;
  extent: number;
  times: number[];
  points: PackedArray;
  labels: number[];
  forward: PackedArray;
  density: string;
  side: number;
}

export interface FlowData {
  steps: number;
  losses: number[];
  reverse: PackedArray;
  grid: PackedArray;
  arrows: PackedArray;
}

export interface FirstData {
  pictures: string[];
  forward: ForwardData;
  plane: PlaneData;
  flow: FlowData;
}

/** What the studio puts into the tab: the progress of a run, its result, or a problem. */
export interface Message {
  kind: "forward" | "reverse" | "compare";
  number: string;
  problem?: string;
  progress?: number;
  of?: number;
  view?: any;
  source?: string;
  picture?: string;
}

export interface Server {
  first_view(params: object): Promise<any>;
  example_run(params: object): Promise<any>;
  forward(params: object): Promise<any>;
  plane_start(params: object): Promise<any>;
  plane_train(params: object): Promise<any>;
  inspect(params: object): Promise<any>;
  animate(params: object): Promise<any>;
}

/** Events that reach Python, with their data. */
export interface Events {
  open(data: { picture: string; view?: string }): void;
  run(data: { params: RunParams }): void;
  compare(data: { params: { runs: RunParams[] } }): void;
}

/** One of the four views of the tab. */
export interface View {
  /** Form fields that a link keeps: their selectors by the names in a link. */
  readonly fields: Record<string, string>;
  /** Draw the view at the tab's time. */
  draw(): void;
  /** The times at which there is something to see, from noise to picture; none: every time. */
  stops(): number[] | undefined;
  /** The canvases that an export takes. */
  canvases(): HTMLCanvasElement[];
  /** The numbers behind the view, one flat object per row. */
  rows(): Record<string, unknown>[];
  /** Whether the view plays from picture to noise. */
  towardNoise(): boolean;
  /** Called when the view is shown. */
  onShow?(): void;
  /** Add what a link needs beside the fields. */
  writeLink(params: URLSearchParams): void;
  /** What a copied link does not restore, as a sentence. */
  linkNote(): string;
  /** Restore from a link whose fields are filled in already. */
  readLink(params: URLSearchParams, t: number): void | Promise<void>;
}
