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
  channels: number;
  /** From latents to RGB, (channels + 1) × 3; null: the channels are RGB. */
  preview: number[][] | null;
  x0: PackedArray;
  eps: PackedArray;
  preparation: (Moments & { name: string })[];
  clean: Moments;
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
  conversion: string;
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
  channels: number;
  /** Channels in one line of a frame of `channelImages`. */
  columns: number;
  latent: boolean;
  task: number;
  noise_level: number;
  condition: Record<string, string>;
  steps: StepData[];
  sheets: Record<string, string>;
  images?: Record<string, HTMLImageElement>;
  channelImages?: Record<string, HTMLImageElement>;
  /** Pictures by the VAE, by step and array: "3 x0". */
  decoded?: Record<string, HTMLImageElement>;
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
  inputs: string;
  input_channels: number;
  output_channels: number;
  words: string[];
  sizes: number[];
  levels: { name: string; shape: [number, number, number]; shown: number }[];
  looks: Look[];
}

export type RunParams = Record<string, string | number | boolean>;

/** What the tab knows of the chosen model. */
export interface Model {
  id: string;
  name: string;
  latent: boolean;
  samplers: Record<string, string>;
  defaults: Record<string, string | number>;
}

export interface LatentsData {
  model: string;
  picture: string;
  reconstruction: string;
  preview: string;
  channels: { map: string; mean: number; deviation: number }[];
  limit: number;
  width: number;
  height: number;
  latent_shape: [number, number, number];
  pixel_values: number;
  latent_values: number;
  ratio: number;
  reconstruction_error: number;
  preview_error: number;
  images?: Record<string, HTMLImageElement>;
}

export interface ReverseData {
  key?: string;
  picture?: string;
  params?: RunParams | null;
  emphasized?: boolean;
  caption: string;
  sampler: string;
  model?: string;
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
  latent: boolean;
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
  kind: "forward" | "reverse" | "compare" | "model";
  number: string;
  problem?: string;
  progress?: number;
  of?: number;
  view?: any;
  source?: string;
  picture?: string;
  model?: Model;
}

export interface Server {
  first_view(params: object): Promise<any>;
  example_run(params: object): Promise<any>;
  forward(params: object): Promise<any>;
  plane_start(params: object): Promise<any>;
  plane_train(params: object): Promise<any>;
  inspect(params: object): Promise<any>;
  channels(params: object): Promise<any>;
  decode(params: object): Promise<any>;
  latents(params: object): Promise<any>;
  animate(params: object): Promise<any>;
}

/** Events that reach Python, with their data. */
export interface Events {
  open(data: { picture: string; view?: string }): void;
  run(data: { params: RunParams }): void;
  compare(data: { params: { runs: RunParams[] } }): void;
}

/** One of the views of the tab. */
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
