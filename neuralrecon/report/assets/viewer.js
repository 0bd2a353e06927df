// The 3D view: one mesh with several sets of vertex colours, drawn when something changes. No library: it takes one
// shader, one buffer a set of colours, and a camera that turns around the middle of the mesh.
"use strict";
(() => {
  const block = document.getElementById("surface");
  if (!block) return;
  const canvas = document.getElementById("view");
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: true, premultipliedAlpha: true, preserveDrawingBuffer: true });
  if (!gl) {
    const says = document.getElementById("view-says");
    says.textContent = "This browser has no WebGL 2: the pictures below show the mesh.";
    says.hidden = false;
    canvas.hidden = true;
    return;
  }
  const data = JSON.parse(block.textContent);
  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const size = data.high.map((h, i) => h - data.low[i]);
  const longest = Math.max(...size), middle = size.map(s => s / longest / 2);
  const radius = Math.hypot(...middle);

  const shader = (kind, source) => {
    const made = gl.createShader(kind);
    gl.shaderSource(made, source);
    gl.compileShader(made);
    if (!gl.getShaderParameter(made, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(made));
    return made;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `#version 300 es
    in vec3 position; in vec3 normal; in vec3 color;
    uniform mat4 clipFromMesh; uniform vec3 light;
    out vec3 shownColor; out float shade;
    void main() {
      gl_Position = clipFromMesh * vec4(position, 1.0);
      shade = 0.5 + 0.58 * max(dot(normalize(normal), light), 0.0);
      shownColor = color;
    }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `#version 300 es
    precision highp float;
    in vec3 shownColor; in float shade; uniform float lit; out vec4 pixel;
    void main() { pixel = vec4(shownColor * mix(1.0, shade, lit), 1.0); }`));
  ["position", "normal", "color"].forEach((name, i) => gl.bindAttribLocation(program, i, name));
  gl.linkProgram(program);
  gl.useProgram(program);
  const place = name => gl.getUniformLocation(program, name);
  const places = { clipFromMesh: place("clipFromMesh"), light: place("light"), lit: place("lit") };

  const filled = (target, content) => {
    const made = gl.createBuffer();
    gl.bindBuffer(target, made);
    gl.bufferData(target, content, gl.STATIC_DRAW);
    return made;
  };
  const attribute = (i, buffer, type, normalised) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(i);
    gl.vertexAttribPointer(i, 3, type, normalised, 0, 0);
  };
  const raw = bytes(data.positions), nVertices = raw.length / 6, corners = bytes(data.corners);
  const wide = nVertices > 65536;
  attribute(0, filled(gl.ARRAY_BUFFER, raw), gl.UNSIGNED_SHORT, true);
  attribute(1, filled(gl.ARRAY_BUFFER, bytes(data.normals)), gl.BYTE, true);
  filled(gl.ELEMENT_ARRAY_BUFFER, corners);
  const nCorners = corners.length / (wide ? 4 : 2);
  const colors = {};
  const layer = name => {
    colors[name] ??= filled(gl.ARRAY_BUFFER, bytes(data.layers.find(l => l.id === name).colors));
    attribute(2, colors[name], gl.UNSIGNED_BYTE, true);
    for (const button of document.querySelectorAll("[data-layer]"))
      button.setAttribute("aria-pressed", button.dataset.layer === name);
    for (const legend of document.querySelectorAll("[data-legend]"))
      legend.hidden = legend.dataset.legend !== name;
    draw();
  };

  // ------------------------------------------------------------------------------------------------------- camera
  const looks = { front: [35, 20], side: [125, 20], top: [35, 89], below: [35, -60] };
  const eye = { azimuth: 35, elevation: 20, distance: 0, shift: [0, 0, 0] };
  const tangent = 0.3;
  const radians = degrees => degrees * Math.PI / 180;
  const axes = () => {
    const [a, e] = [radians(eye.azimuth), radians(eye.elevation)];
    const away = [Math.cos(a) * Math.cos(e), Math.sin(a) * Math.cos(e), Math.sin(e)];
    const right = [-Math.sin(a), Math.cos(a), 0];
    const up = [-Math.cos(a) * Math.sin(e), -Math.sin(a) * Math.sin(e), Math.cos(e)];
    return { away, right, up };
  };
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const whole = () => radius / Math.sin(Math.atan(tangent * Math.min(1, canvas.width / canvas.height)));

  let waits = false;
  const draw = () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => { waits = false; now(); });
  };
  const now = () => {
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    if (width && (canvas.width !== width || canvas.height !== height)) [canvas.width, canvas.height] = [width, height];
    eye.distance ||= whole();
    const { away, right, up } = axes();
    const centre = middle.map((m, i) => m + eye.shift[i]);
    const at = centre.map((c, i) => c + away[i] * eye.distance);
    const near = Math.max(eye.distance - 1.6 * radius, eye.distance * 0.01), far = eye.distance + 3 * radius;
    const aspect = canvas.width / canvas.height;
    const rows = [right.map(x => x / tangent / aspect), up.map(x => x / tangent), away];
    const [x, y, z] = rows.map(row => -dot(row, at));
    const a = (far + near) / (near - far), b = 2 * far * near / (near - far);
    const matrix = new Float32Array(16);
    for (let i = 0; i < 3; i++) {
      matrix[4 * i] = rows[0][i]; matrix[4 * i + 1] = rows[1][i];
      matrix[4 * i + 2] = a * rows[2][i]; matrix[4 * i + 3] = -rows[2][i];
    }
    matrix.set([x, y, a * z + b, -z], 12);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.uniformMatrix4fv(places.clipFromMesh, false, matrix);
    const light = [0, 1, 2].map(i => away[i] * 0.8 + up[i] * 0.5 - right[i] * 0.35);
    gl.uniform3fv(places.light, light.map(l => l / Math.hypot(...light)));
    gl.uniform1f(places.lit, document.getElementById("lit").checked ? 1 : 0);
    gl.drawElements(gl.TRIANGLES, nCorners, wide ? gl.UNSIGNED_INT : gl.UNSIGNED_SHORT, 0);
    canvas.dataset.frames = 1 + Number(canvas.dataset.frames || 0);
    if (canvas.dataset.frames === "1") performance.mark("first-frame");
  };

  // -------------------------------------------------------------------------------------------------------- hands
  const turn = (dx, dy) => {
    eye.azimuth -= dx * 0.4;
    eye.elevation = Math.max(-89.9, Math.min(89.9, eye.elevation + dy * 0.4));
    draw();
  };
  const move = (dx, dy) => {
    const { right, up } = axes(), step = 2 * tangent * eye.distance / canvas.clientHeight;
    eye.shift = eye.shift.map((s, i) => s + (-dx * right[i] + dy * up[i]) * step);
    draw();
  };
  const come = factor => {
    eye.distance = Math.max(0.05 * radius, Math.min(12 * radius, eye.distance * factor));
    draw();
  };
  const fingers = new Map();
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener("pointermove", event => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const here = [event.clientX, event.clientY], [dx, dy] = [here[0] - before[0], here[1] - before[1]];
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = p => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
      come(apart(before) / apart(here));
      move(dx / 2, dy / 2);
    } else if (event.shiftKey || event.buttons === 2) move(dx, dy);
    else turn(dx, dy);
    fingers.set(event.pointerId, here);
  });
  for (const name of ["pointerup", "pointercancel"])
    canvas.addEventListener(name, event => fingers.delete(event.pointerId));
  canvas.addEventListener("contextmenu", event => event.preventDefault());
  canvas.addEventListener("wheel", event => { event.preventDefault(); come(Math.exp(event.deltaY * 0.0012)); }, { passive: false });
  canvas.addEventListener("keydown", event => {
    const keys = {
      ArrowLeft: () => turn(-20, 0), ArrowRight: () => turn(20, 0), ArrowUp: () => turn(0, 20),
      ArrowDown: () => turn(0, -20), "+": () => come(0.9), "=": () => come(0.9), "-": () => come(1.1),
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  for (const button of document.querySelectorAll("[data-layer]"))
    button.addEventListener("click", () => layer(button.dataset.layer));
  for (const button of document.querySelectorAll("[data-look]"))
    button.addEventListener("click", () => {
      [eye.azimuth, eye.elevation] = looks[button.dataset.look];
      [eye.distance, eye.shift] = [0, [0, 0, 0]];
      draw();
    });
  document.getElementById("lit").addEventListener("change", draw);
  new ResizeObserver(draw).observe(canvas);
  layer(data.layers[0].id);
})();
