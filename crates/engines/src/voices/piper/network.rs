//! The network of a Piper voice, in two parts: one for the content and the timing, one for the samples.
//!
//! The first part makes a frame for every 256 samples or so, for the whole utterance. The second part, a
//! vocoder of convolutions alone, does three quarters of the work, and its input for a sample reaches
//! only over some frames: a piece of the frames, given those around it, becomes the same samples as in
//! the whole, to the bit. So the first samples come early, and less memory makes the vocoder faster: 3.3 s
//! instead of 4.9 s for 11 s of speech.

use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use rten::{Model, NodeId, RunOptions, ThreadPool, ValueOrView};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};

use crate::voices::onnx;
use voxline::engine::{EngineError, ModelFault};

/// Name of the vocoder's first operator, in every voice that Piper exported.
const VOCODER: &str = "/dec/conv_pre/Conv";

/// Number of frames on either side of a frame that the vocoder depends on: the sum of its convolutions,
/// which is 11 in Piper's medium voices and 13 in its high ones.
const REACH: usize = 14;

/// Number of frames of the first piece, 0.28 s at 22.05 kHz, and the largest number of later pieces. Each
/// piece pays for its surroundings, and has to be ready before the piece before it has been played.
const FIRST: usize = 24;
const LARGEST: usize = 96;

/// A loaded network.
pub(super) struct Network {
    model: Model,
    nodes: Nodes,
}

/// Parameters of speech.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Noise in the sound, length, and noise in the rhythm.
    pub(super) scales: [f32; 3],
    /// Number of the speaker, used by networks of several speakers.
    pub(super) speaker: i32,
}

impl Network {
    pub(super) fn load(path: &Path) -> Result<Network, ModelFault> {
        let file = fs::read(path)?;
        let frames = onnx::first_input(&file, VOCODER)?;
        // Noise is drawn from seeds, so that the same IDs give the same samples, whatever else runs
        // meanwhile.
        let model = Model::load(onnx::seeded(&file)?).map_err(ModelFault::parse)?;
        let nodes = Nodes::find(&model, frames.as_deref())?;
        Ok(Network { model, nodes })
    }

    /// Speaks, and passes the samples to `take` piece by piece, until there are no more or `take` breaks
    /// off.
    pub(super) fn speak(
        &self,
        ids: Vec<i32>,
        manner: &Manner,
        take: &mut dyn FnMut(&[f32]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, EngineError> {
        // One thread for each sentence: a second one gains about a tenth on an idle machine and nothing
        // on a busy one. Concurrent callers still use all cores.
        let options = RunOptions::default().with_thread_pool(Some(Arc::new(ThreadPool::with_num_threads(1))));
        let length = i32::try_from(ids.len()).map_err(failed)?;
        let mut inputs: Vec<(NodeId, ValueOrView)> = vec![
            (self.nodes.ids, NdTensor::from_data([1, ids.len()], ids).into()),
            (self.nodes.lengths, NdTensor::from_data([1], vec![length]).into()),
            (self.nodes.scales, NdTensor::from_data([3], manner.scales.to_vec()).into()),
        ];
        inputs.extend(self.speaker(manner));
        let Some(frames_node) = self.nodes.frames else {
            return Ok(take(&self.run(inputs, self.nodes.output, &options)?.to_vec()));
        };
        let frames = self.run(inputs, frames_node, &options)?;
        let &[1, _, count] = frames.shape() else {
            return Err(failed(format!("its frames have the shape {:?}", frames.shape())));
        };
        let (mut from, mut size) = (0, FIRST);
        while from < count {
            let to = (from + size).min(count);
            let (first, last) = (from.saturating_sub(REACH), (to + REACH).min(count));
            let heard = frames.slice((.., .., first..last)).to_tensor();
            let mut inputs: Vec<(NodeId, ValueOrView)> = vec![(frames_node, heard.into())];
            inputs.extend(self.speaker(manner));
            let samples = self.run(inputs, self.nodes.output, &options)?.to_vec();
            let hop = samples.len() / (last - first);
            if take(&samples[(from - first) * hop..(to - first) * hop]).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            (from, size) = (to, (2 * size).min(LARGEST));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn speaker(&self, manner: &Manner) -> Option<(NodeId, ValueOrView<'static>)> {
        self.nodes.speaker.map(|node| (node, NdTensor::from_data([1], vec![manner.speaker]).into()))
    }

    fn run(
        &self,
        inputs: Vec<(NodeId, ValueOrView)>,
        output: NodeId,
        options: &RunOptions,
    ) -> Result<Tensor<f32>, EngineError> {
        let run = self.model.run_n(inputs, [output], Some(options.clone()));
        let [output] = run.map_err(failed)?;
        output.try_into().map_err(|_| failed("its output is not f32"))
    }
}

fn failed(source: impl Into<Box<dyn Error + Send + Sync>>) -> EngineError {
    EngineError::inference("piper", source)
}

/// The inputs and outputs of the network.
struct Nodes {
    ids: NodeId,
    lengths: NodeId,
    scales: NodeId,
    /// Present only in networks with several speakers.
    speaker: Option<NodeId>,
    /// Value between the two parts. A network of another make is run as one part.
    frames: Option<NodeId>,
    output: NodeId,
}

impl Nodes {
    fn find(model: &Model, frames: Option<&str>) -> Result<Nodes, String> {
        let node =
            |name| model.find_node(name).ok_or_else(|| format!("has no node '{name}': not a Piper voice"));
        Ok(Nodes {
            ids: node("input")?,
            lengths: node("input_lengths")?,
            scales: node("scales")?,
            speaker: model.find_node("sid"),
            frames: frames.and_then(|name| model.find_node(name)),
            output: node("output")?,
        })
    }
}
